"""A checked foreign graph in the form that the importer takes. Runs in the child process."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

from cnnc.errors import ModelError, did_you_mean
from cnnc.foreign.batch import BATCH, BatchDependence, shown
from cnnc.foreign.extensions import extension_of
from cnnc.foreign.growth import line
from cnnc.foreign.protos import all_nodes, label, reads
from cnnc.foreign.structure import external_region, needed_nodes, opset_of
from cnnc.foreign.walk import Walk
from cnnc.opset import IR_VERSION, OPSET


def normalise(
    model: ModelProto, source: Path, folder: Path, request: dict[str, Any], facts: dict[str, Any]
) -> None:
    """Write ``model.onnx`` and ``tensors.bin`` to `folder`, and complete the facts. Raises ModelError."""
    graph = model.graph
    outputs = _outputs(model, request["outputs"], facts)
    nodes = needed_nodes(graph, outputs)
    _drop_unread(nodes, outputs, opset_of(model))
    data = _input(model, nodes)
    dims = [d.dim_value if d.HasField("dim_value") else None for d in data.type.tensor_type.shape.dim]
    example = _example(data.name, dims[1:], request["example"])
    fixed = dims[0]
    names = {name for node in all_nodes(graph.node) for name in (*node.input, *node.output)}
    names |= {value.name for value in graph.input} | {tensor.name for tensor in graph.initializer}

    def walked(batches: Sequence[int], fixed: bool) -> Walk:
        walk = Walk(opset_of(model), batches, fixed, set(names))
        walk.input(data.name, data.type.tensor_type.elem_type, example)
        for tensor in graph.initializer:
            walk.tensor(tensor.name, tensor)
        for node in nodes:
            walk.visit(node)
        return walk

    if fixed is None:
        walk = walked((2, 3), False)
    else:
        try:
            walk = walked((fixed, 2 * fixed, 3 * fixed), True)
            for output in outputs:
                _check_output(walk, output)
        except BatchDependence as error:
            facts["notes"].append(f"the batch stays at {fixed}, as in the source: {error.what.rstrip('.')}.")
            walk = walked((fixed,), False)
    facts["problems"] = [[node.op_type, label(node), why] for node, why in walk.problems if why]
    if not facts["problems"]:
        _Writer(walk, model, source, data).write(folder, [walk.alias(output) for output in outputs], facts)


def _drop_unread(nodes: Sequence[NodeProto], outputs: Sequence[str], version: int) -> None:
    """Take away the last outputs of nodes that nothing reads: masks, indices, running statistics."""
    read = {*outputs, *(name for node in nodes for name in reads(node))}
    for node in nodes:
        if extension_of(node, version):
            continue
        schema = onnx.defs.get_schema(node.op_type, version, "")
        if any(
            output.option == onnx.defs.OpSchema.FormalParameterOption.Variadic for output in schema.outputs
        ):
            continue  # how many outputs a Split has is part of what it computes
        while len(node.output) > max(schema.min_output, 1) and node.output[-1] not in read:
            del node.output[-1]


def _outputs(model: ModelProto, wanted: Sequence[str] | None, facts: dict[str, Any]) -> list[str]:
    """The outputs that losses are to see: those asked for, or the first."""
    outputs = [value.name for value in model.graph.output]
    if not outputs:
        raise ModelError("the model has no outputs.")
    for name in wanted or ():
        if name not in outputs:
            raise ModelError(f"the model has no output '{name}'.", hint=did_you_mean(name, outputs))
    chosen = list(wanted or outputs[:1])
    if rest := [name for name in outputs if name not in chosen]:
        what = f"output{'s' * (len(chosen) > 1)} {', '.join(map(repr, chosen))}"
        facts["notes"].append(f"trained on the {what}; left out: {', '.join(rest[:5])}.")
    return chosen


def _input(model: ModelProto, nodes: Sequence[NodeProto]) -> ValueInfoProto:
    """The one input that is data."""
    constants = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in constants]
    if len(inputs) != 1:
        found = ", ".join(f"'{value.name}'" for value in inputs[:5]) or "none"
        raise ModelError(f"a network has one input for its data; this model has {found}.")
    tensor = inputs[0].type.tensor_type
    if tensor.elem_type not in (TensorProto.FLOAT, TensorProto.DOUBLE):
        kind = TensorProto.DataType.Name(tensor.elem_type).lower() if tensor.elem_type else "no tensor"
        raise ModelError(
            f"the input '{inputs[0].name}' is {kind}, and training needs float32.",
            hint="Export the model without its preprocessing, in float32.",
        )
    if len(tensor.shape.dim) < 2:
        raise ModelError(f"the input '{inputs[0].name}' has no axes beside the batch.")
    for dim in tensor.shape.dim:
        if dim.HasField("dim_value") and not 0 < dim.dim_value < 2**31:
            raise ModelError(f"the input '{inputs[0].name}' claims a size of {dim.dim_value}.")
    return inputs[0]


def _example(name: str, dims: Sequence[int | None], given: Sequence[int] | None) -> list[int]:
    """The sizes of one example."""
    if given is not None:
        if len(given) != len(dims):
            raise ModelError(f"the input '{name}' has {len(dims)} axes beside the batch, not {len(given)}.")
        return list(given)
    if None in dims:
        raise ModelError(
            f"the input '{name}' leaves its size open, and training needs to know it.",
            hint="Say it with --input-size, such as --input-size 3x224x224.",
        )
    return [int(d) for d in dims if d is not None]


def _check_output(walk: Walk, output: str) -> None:
    name = walk.alias(output)
    if name not in walk.worlds[0].types:
        return  # a node before it has a problem, which is told instead
    dims = shown([world.dims(name) for world in walk.worlds], [world.batch for world in walk.worlds])
    if dims is None or not dims or dims[0] != BATCH:
        raise BatchDependence("the output does not have one row for each example")


class _Writer:
    """Turns a finished walk into the two files."""

    def __init__(self, walk: Walk, model: ModelProto, source: Path, data: ValueInfoProto) -> None:
        self.walk, self.source, self.data = walk, source, data
        self.literals = {
            node.output[0]: node.attribute[0].t
            for node in model.graph.node
            if node.op_type == "Constant" and len(node.attribute) and node.attribute[0].HasField("t")
        }
        self.tensors = {tensor.name: tensor for tensor in model.graph.initializer} | self.literals
        self.tensors |= walk.inner
        self.batches = [world.batch for world in walk.worlds]
        self.first: list[NodeProto] = []
        self.begun: set[str] = set()
        self.constants: dict[str, TensorProto] = {}

    def write(self, folder: Path, outputs: Sequence[str], facts: dict[str, Any]) -> None:
        nodes = self._live(outputs)
        given = {name for node in nodes for name in node.output}
        names = dict.fromkeys(name for node in nodes for name in node.input if name and name not in given)
        if self.data.name in outputs or not given.issuperset(outputs):
            raise ModelError("the output does not depend on the input.")
        infos, facts["tensors"] = [], {}
        facts["stored"] = [name for name in names if name in self.tensors]
        facts["literals"] = [name for name in names if name in self.literals]
        with (folder / "tensors.bin").open("wb") as file:
            for name in names:
                if name == self.data.name:
                    continue
                if self._is_large(name):
                    facts["tensors"][name] = self._save(name, file)
                    infos.append(self._info(name))
                elif name not in self.begun:
                    self._constant(name)
        if self.data.name not in names and not any(self.data.name in node.input for node in self.first):
            raise ModelError("the output does not depend on the input.")
        graph = helper.make_graph(
            [*self.first, *nodes],
            "foreign",
            [self._info(self.data.name), *infos],
            [self._info(output) for output in outputs],
            [*self.constants.values()],
            value_info=[
                self._info(name) for n in (*self.first, *nodes) for name in n.output if self._told(name)
            ],
        )
        result = helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION
        )
        (folder / "model.onnx").write_bytes(result.SerializeToString())

    def _live(self, outputs: Sequence[str]) -> list[NodeProto]:
        """The nodes that still matter after folding, Reshapes with constant targets."""
        wanted = set(outputs)
        live = []
        for node in reversed(self.walk.nodes):
            if wanted.isdisjoint(node.output):
                continue
            if node.op_type == "Reshape":
                self._constant_target(node)
            wanted.update(node.input)
            live.append(node)
        return live[::-1]

    def _constant_target(self, node: NodeProto) -> None:
        before, after = self._dims(node.input[0]), self._dims(node.output[0])
        if before is None or after is None or None in after or 0 in after:
            return
        target = [
            d if isinstance(d, int) else 0 if i < len(before) and before[i] == d else -1
            for i, d in enumerate(after)
        ]
        if target.count(-1) <= 1:
            del node.attribute[:]
            node.input[1] = self.walk.constant(np.asarray(target, np.int64))

    def _dims(self, name: str) -> tuple[int | str | None, ...] | None:
        return shown([world.dims(name) for world in self.walk.worlds], self.batches)

    def _told(self, name: str) -> bool:
        """Whether the walk has seen a value; it has not those that make a constant grow with the batch."""
        return name in self.walk.worlds[0].types

    def _info(self, name: str) -> ValueInfoProto:
        dims = self._dims(name)
        return helper.make_tensor_value_info(
            name, self.walk.dtype(name), None if dims is None else list(dims)
        )

    def _is_large(self, name: str) -> bool:
        return name in self.walk.weights or name not in self.walk.worlds[0].known

    def _save(self, name: str, file: BinaryIO) -> dict[str, Any]:
        """Append a tensor's data to the file and say where it is, or which number fills it."""
        while name in self.walk.copies:
            name = self.walk.copies[name]
        if name in self.walk.filled:
            return {"fill": float(self.walk.filled[name].reshape(-1)[0])}
        offset = file.tell()
        if name in self.walk.worlds[0].known:
            file.write(np.ascontiguousarray(self.walk.worlds[0].known[name]).tobytes())
            return {"offset": offset}
        tensor = self.tensors[name]
        if tensor.data_location == TensorProto.EXTERNAL:
            size = math.prod(tensor.dims) * onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
            path, start, length = external_region(tensor, f"initializer '{name}'", self.source, size)
            with path.open("rb") as source:
                source.seek(start)
                while length:
                    piece = source.read(min(length, 2**24))
                    file.write(piece)
                    length -= len(piece)
        elif tensor.HasField("raw_data"):
            file.write(tensor.raw_data)
        else:
            file.write(numpy_helper.to_array(tensor).tobytes())
        return {"offset": offset}

    def _constant(self, name: str) -> None:
        """A small constant, or what depends on the batch as nodes that compute it."""
        arrays = [world.known[name] for world in self.walk.worlds]
        self.begun.add(name)
        slope, rest = line(arrays, self.batches)
        if slope is not None and not slope.any() and name not in self.walk.bent:
            self.constants[name] = numpy_helper.from_array(arrays[0], name)
            return
        if slope is None or name in self.walk.bent or arrays[0].dtype != np.int64:
            self._compute(name)
            return
        parts = [self.walk.fresh(f"{name}/{part}") for part in ("batch", "slope", "rest", "growth")]
        batch, slope_name, rest_name, growth = parts
        for part, array in ((slope_name, slope), (rest_name, rest)):
            self.constants[part] = numpy_helper.from_array(np.atleast_1d(array), part)
        self.first.append(helper.make_node("Shape", [self.data.name], [batch], start=0, end=1))
        self.first.append(helper.make_node("Mul", [batch, slope_name], [growth]))
        total = name if arrays[0].ndim else self.walk.fresh(f"{name}/total")
        self.first.append(helper.make_node("Add", [growth, rest_name], [total]))
        if not arrays[0].ndim:
            self.first.append(helper.make_node("Squeeze", [total], [name]))

    def _compute(self, name: str) -> None:
        """The node that gave a value, and what that reads."""
        node = self.walk.origins.get(name)
        if node is None or any(read and read not in self.walk.worlds[0].known for read in node.input):
            raise ModelError(f"the constant '{name}' depends on the size of the batch in an unknown way.")
        self.begun.update(node.output)
        for read in node.input:
            if read and read not in self.begun:
                self._constant(read)
        self.first.append(node)
