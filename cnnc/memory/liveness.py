"""How much memory training takes, before it is run: the peak of all values of a step that are alive at once.

The values have static shapes once the batch has a size. The order of execution is that of ONNX Runtime: from
each output backwards, a node right after the last of its inputs. What a value takes is free again after the
last node that reads it; an elementwise node writes over an input that nobody reads later, and a Reshape is no
copy.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import onnx
from onnx import inliner

RUNTIME = 150_000_000
"""Bytes of a process that has built a small network and opened its sessions."""
BATCHES = 3
"""Batches held at once: the one in the step, and those made ahead of it."""
MARGIN = 1.3
"""What ONNX Runtime takes beyond the values themselves, as a factor: other layouts, workspaces of kernels,
gaps between buffers. Measured from 0.7 to 1.5 on the benchmarks' networks."""
EVALUATED = 128
"""Examples that an evaluation takes at once, unless fewer fit."""

_VIEWS = {"Reshape", "Flatten", "Squeeze", "Unsqueeze", "Identity"}
_COPIED = {"Shape", "Size", "Transpose", "Concat", "Slice", "Pad", "Expand", "Tile", "Gather", "Split"}
_HEAVY = {"Conv", "ConvTranspose", "MatMul", "Gemm", "MaxPool", "AveragePool", "Resize", "OneHot"}
_FEW = 1 << 10


@dataclass(frozen=True)
class Estimate:
    """Bytes of a training process.

    `state` lies in two sets of buffers; `values` are those of a step and `evaluated` those of an evaluation
    that are alive at once; `batch` are images and targets.
    """

    state: int
    values: int
    evaluated: int
    batch: int

    @property
    def total(self) -> int:
        """All of the process, but for the data set."""
        return round(RUNTIME + self.state + MARGIN * (self.values + self.evaluated) + self.batch)


def estimate(train: bytes, evaluation: bytes, batch: int, chunks: int = 1) -> Estimate:
    """What training at this batch size takes, where the step goes through it in `chunks`.

    `train` and `evaluation` are the graphs of a step and an evaluation, neither of them in chunks itself.
    """
    part = -(-batch // chunks)
    values, inputs, data = _alive(train, part)
    evaluated, _, _ = _alive(evaluation, min(part, EVALUATED))
    gradients = 2 * inputs if chunks > 1 else 0  # sums so far, and those of the chunk
    return Estimate(2 * inputs, values + gradients, evaluated, BATCHES * data * batch // part)


def _alive(model: bytes, batch: int) -> tuple[int, int, int]:
    """Bytes of the values alive at once, of the inputs other than the batch, and of the batch."""
    graph, data = _static(model, batch)
    sizes = _sizes(graph)
    fed = {value.name for value in graph.input}
    kept = {value.name for value in graph.output}
    values = _peak([*_order(graph)], sizes, fed | kept, _FEW)
    return values, sum(sizes[name] for name in fed - data), sum(sizes[name] for name in data)


def _static(model: bytes, batch: int) -> tuple[onnx.GraphProto, set[str]]:
    """The graph without functions, its batch of this size, every value typed; the inputs that hold a batch.

    The batch of a network may be fixed already: then that is an image and its target.
    """
    proto = onnx.load_from_string(model)
    if proto.functions:
        proto = inliner.inline_local_functions(proto)
    inputs = {value.name: value.type.tensor_type.shape.dim for value in proto.graph.input}
    data = set([*inputs][:2])
    if symbol := inputs[proto.graph.input[0].name][0].dim_param:
        data = {name for name, dims in inputs.items() if dims and dims[0].dim_param == symbol}
        for value in (*proto.graph.input, *proto.graph.output):
            for dim in value.type.tensor_type.shape.dim:
                if dim.dim_param == symbol:
                    dim.dim_value = batch
    del proto.graph.value_info[:]
    return onnx.shape_inference.infer_shapes(proto, data_prop=True).graph, data


def _sizes(graph: onnx.GraphProto) -> dict[str, int]:
    """Bytes of each value; one of unknown shape counts as the largest input of its node."""
    sizes: dict[str, int] = defaultdict(int)
    for value in (*graph.input, *graph.value_info, *graph.output):
        tensor = value.type.tensor_type
        dims = [dim.dim_value for dim in tensor.shape.dim if dim.HasField("dim_value")]
        if tensor.HasField("shape") and len(dims) == len(tensor.shape.dim):
            sizes[value.name] = (
                math.prod(dims) * onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type).itemsize
            )
    for node in graph.node:
        for output in node.output:
            if output not in sizes and node.op_type not in {"Shape", "Size", "Constant"}:
                sizes[output] = max((sizes[name] for name in node.input if name), default=0)
    return sizes


def _order(graph: onnx.GraphProto) -> Iterable[onnx.NodeProto]:
    """The nodes as ONNX Runtime orders them: depth first from the last output, late inputs first."""
    nodes = list(graph.node)
    producer = {output: index for index, node in enumerate(nodes) for output in node.output if output}
    read = {name for node in nodes for name in node.input}
    stack = [(i, False) for i, node in enumerate(nodes) if not any(output in read for output in node.output)]
    visited: set[int] = set()
    while stack:
        index, leaving = stack.pop()
        if leaving:
            yield nodes[index]
            continue
        if index in visited:
            continue
        visited.add(index)
        stack.append((index, True))
        before = sorted({producer[name] for name in nodes[index].input if name in producer})
        stack.extend((i, False) for i in before if i not in visited)


def _peak(nodes: list[onnx.NodeProto], sizes: Mapping[str, int], held: set[str], few: int) -> int:
    """The most bytes alive at once of values that the nodes make; `held` have buffers of their own."""
    left = Counter(name for node in nodes for name in node.input)
    root: dict[str, str] = {}
    alive: dict[str, int] = {}
    readers: Counter[str] = Counter()

    def base(name: str) -> str:
        while name in root:
            name = root[name]
        return name

    for name, count in left.items():
        readers[name] = count
    now = most = 0
    for node in nodes:
        inputs = [name for name in node.input if name]
        dying = {b for name in inputs if (b := base(name)) in alive and readers[b] == inputs.count(name)}
        reuse = next(
            (b for b in dying if _in_place(node) and alive[b] == sizes[node.output[0]] and b not in held),
            None,
        )
        for position, output in enumerate(node.output):
            if not output or output in held:
                continue
            if node.op_type in _VIEWS and inputs and position == 0:
                source = base(inputs[0])
                root[output] = source
                readers[source] += readers[output]
            elif position == 0 and reuse is not None:
                alive[output] = alive.pop(reuse)
            elif sizes[output] >= few:
                alive[output] = sizes[output]
                now += sizes[output]
        most = max(most, now)
        for name in inputs:
            b = base(name)
            readers[b] -= 1
            if readers[b] <= 0 and b in alive:
                now -= alive.pop(b)
        for output in node.output:
            if output in alive and readers[output] == 0:
                now -= alive.pop(output)
    return most


def _in_place(node: onnx.NodeProto) -> bool:
    """Whether ONNX Runtime may write the output over an input."""
    return node.op_type not in _HEAVY | _COPIED and not node.op_type.startswith(("Reduce", "Arg"))
