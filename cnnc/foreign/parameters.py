"""Which tensors of a foreign graph are parameters, and of which kind."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

from onnx import GraphProto, NodeProto, TensorProto, numpy_helper

from cnnc.foreign.reading import Foreign
from cnnc.foreign.slots import PASSING, SLOTS
from cnnc.ir.network import Kind

_AFTER: dict[str, Kind] = {"Add": "bias", "Sub": "bias", "Sum": "bias", "Mul": "normalization"}
"""Operators whose constants are parameters where they follow others: a bias or a scale of its own."""


_FIRST_ONLY = {"Div", "Resize"}
"""Operators whose first input alone may be part of a weight: not the length that an exporter knew already."""


def parameter_kinds(foreign: Foreign) -> dict[str, Kind]:
    """The tensors that are parameters, in the order in which the graph reads them, with their kinds."""
    graph = foreign.graph
    kinds: dict[str, Kind] = {}
    source, made = _sources(graph, _candidates(foreign)), _made(graph)
    dims, own = tensor_dims(graph), foreign.stored | foreign.drawn.keys()

    def is_own(name: str) -> bool:
        return name in own and math.prod(dims[name]) > 1 and not _is_mask(foreign, name)

    for node in graph.node:
        for kind, name in zip(SLOTS.get(node.op_type, ()), node.input, strict=False):
            if kind is not None and name in source:
                kinds.setdefault(source[name], kind)
            elif kind == "weight" and name in made and node.output[0] not in made:
                for leaf in filter(is_own, _leaves(name, made, source)):
                    kinds.setdefault(leaf, _kind_within(dims[leaf]))
    active = {name for name, origin in source.items() if origin in kinds}
    for node in graph.node:
        if node.op_type in _AFTER and any(name in active for name in node.input if name not in source):
            for name in (source[name] for name in node.input if name in source):
                if is_own(name):
                    kinds.setdefault(name, _kind_after(node, dims[name]))
        if any(name in active or source.get(name) in kinds for name in node.input):
            active.update(node.output)
    order = [source[name] for node in graph.node for name in node.input if name in source]
    return {name: kinds[name] for name in dict.fromkeys(order) if name in kinds}


def _candidates(foreign: Foreign) -> set[str]:
    """Floating-point tensors: large ones, and small ones that stand in the source as they are."""
    floating = (TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16, TensorProto.BFLOAT16)
    large = {v.name for v in foreign.graph.input[1:] if v.type.tensor_type.elem_type in floating}
    return large | {
        tensor.name
        for tensor in foreign.graph.initializer
        if tensor.data_type in floating and tensor.name in foreign.stored
    }


def _sources(graph: GraphProto, candidates: set[str]) -> dict[str, str]:
    """For each value that is a tensor in another shape, that tensor."""
    source = {name: name for name in candidates}
    for node in graph.node:
        if node.op_type in PASSING and node.input[0] in source:
            source[node.output[0]] = source[node.input[0]]
    return source


def _made(graph: GraphProto) -> dict[str, NodeProto]:
    """The values that constants alone make, with their nodes."""
    constants = {tensor.name for tensor in graph.initializer} | {value.name for value in graph.input[1:]}
    made: dict[str, NodeProto] = {}
    for node in graph.node:
        if all(not name or name in constants or name in made for name in node.input):
            made.update(dict.fromkeys(node.output, node))
    return made


def _leaves(name: str, made: Mapping[str, NodeProto], source: Mapping[str, str]) -> Iterator[str]:
    """The tensors that a weight is computed of: of a standardised one, or of a direction and a length."""
    waiting, seen = [name], set[str]()
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        if name in source:
            yield source[name]
        elif name in made:
            node = made[name]
            waiting += node.input[:1] if node.op_type in _FIRST_ONLY else node.input


def _is_mask(foreign: Foreign, name: str) -> bool:
    """Whether a tensor holds zeros and ones, and both: it chooses, and is not trained."""
    small = [numpy_helper.to_array(tensor) for tensor in foreign.graph.initializer if tensor.name == name]
    array = foreign.arrays.get(name, small[0] if small else None)
    if array is None:
        return False
    zeros, ones = (array == 0).sum(), (array == 1).sum()
    return bool(zeros and ones and zeros + ones == array.size)


def _kind_within(dims: tuple[int, ...]) -> Kind:
    """Of a part of a weight; a length for each output, as of a scale, does not decay."""
    return "weight" if sum(d > 1 for d in dims) > 1 else "normalization"


def _kind_after(node: NodeProto, dims: tuple[int, ...]) -> Kind:
    """A bias or scale varies along one axis; what varies along more (an embedding of places) is a weight."""
    return _AFTER[node.op_type] if sum(d > 1 for d in dims) <= 1 else "weight"


def tensor_dims(graph: GraphProto) -> dict[str, tuple[int, ...]]:
    """The sizes of every tensor that a normalised graph reads."""
    dims = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    for value in graph.input[1:]:
        dims[value.name] = tuple(d.dim_value for d in value.type.tensor_type.shape.dim)
    return dims
