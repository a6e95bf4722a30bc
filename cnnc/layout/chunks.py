"""A large batch in equal chunks, one after the other, so that what lies between two operators stays in cache.

The step is written out: forward and backward once for each chunk, the mean of the gradients, one update. That
is the same step where examples do not meet before the loss, and the loss is a mean over as many terms in
each chunk.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import onnx_ir as ir

from cnnc.bundle import LOSS
from cnnc.ir import Builder, TensorType, dims_of, type_of
from cnnc.ir.examples import Apart
from cnnc.ir.transcribe import begun_like, copy_node
from cnnc.layout.relayout import copy_note

_AFTER = ("update/", "clip/", "accumulate/", "average/")
_MEET = {
    "BatchNormalizationTraining": "batch normalisation",
    "DropoutMask": "dropout",
    "UniformDraws": "augmentation",
}


def unsplittable(step: ir.Graph, batch: Collection[str]) -> str:
    """Why the batch of a step can't go in equal chunks, in a clause; empty where it can.

    `batch` names the inputs that hold the batch, whose size must still be a symbol (see `Apart`).
    """
    for node in step:
        if node.op_type in _MEET:
            return f"it has {_MEET[node.op_type]}"
    parts = parts_of(step, batch)
    inputs = [value for value in step.inputs if value.name in batch]
    symbol, *_ = dims_of(inputs[0])
    if not isinstance(symbol, str):
        return "its batches are of one size"
    apart = Apart(symbol, inputs)
    for node in (*parts.shared, *parts.work):
        if _is_of_network(node) and (mixed := apart.meet(node)):
            return mixed
    for value in parts.across:
        if _joined(value) is None:
            return f"'{value.name}' is no mean and no sum over the batch"
    counts = [v for v in parts.across if str(v.name).startswith("metrics/loss/count")]
    if not counts or any(v.producer() is None or v.producer().op_type != "Size" for v in counts):  # type: ignore[union-attr]
        return "its loss counts examples by weight"
    return ""


def in_chunks(step: ir.Graph, batch: Collection[str], count: int) -> ir.Graph:
    """The step for `count` times the batch that `step` (from `fix_batch`) is for.

    The chunks wait for one another: each image is added a zero that the gradients of the chunk before give.
    """
    parts = parts_of(step, batch)
    builder = begun_like(step)
    values: dict[ir.Value, ir.Value] = {}
    for value in step.inputs:
        dtype, dims = type_of(value).dtype, dims_of(value)
        if value.name in batch:
            dims = (count * int(dims[0]), *dims[1:])
        values[value] = builder.input(str(value.name), TensorType(dtype, dims))
    copy_nodes(builder, parts.shared, values)
    found: list[dict[ir.Value, ir.Value]] = []
    gate: ir.Value | None = None
    for i in range(count):
        local = dict(values)
        with builder.scope("chunks"):
            for value in step.inputs:
                if value.name in batch:
                    n = int(dims_of(value)[0])
                    part = builder.op("Slice", values[value], [i * n], [(i + 1) * n], [0])
                    if gate is not None and part.dtype.is_floating_point():
                        part = builder.op("Add", part, gate)
                    local[value] = part
                    copy_note(value, part)
        copy_nodes(builder, parts.work, local)
        found.append({value: local[value] for value in parts.across})
        with builder.scope("chunks"):
            gate = _zero(builder, [local[v] for v in parts.across if _is_gradient(v)])
    with builder.scope("chunks"):
        for value in parts.across:
            values[value] = joined(builder, value, [each[value] for each in found])
    copy_nodes(builder, parts.after(step), values)
    for value in step.outputs:
        result = values[value]
        if result.name != value.name:
            taken = next((v for node in builder.graph for v in node.outputs if v.name == value.name), None)
            if taken is not None:
                taken.name = builder.unique(f"chunk/{value.name}")
            if result.is_graph_input() or result in builder.graph.outputs:
                result = builder.op("Identity", result)
            result.name = str(value.name)
        builder.graph.outputs.append(result)
    return builder.graph


@dataclass(frozen=True)
class Parts:
    """Nodes that do not see the batch, those that see it before the update, and what the latter give on."""

    shared: list[ir.Node]
    work: list[ir.Node]
    across: list[ir.Value]

    def after(self, step: ir.Graph) -> list[ir.Node]:
        """The other nodes of the step: the update."""
        before = {*self.shared, *self.work}
        return [node for node in step if node not in before]


def parts_of(step: ir.Graph, batch: Collection[str]) -> Parts:
    """The parts of a step; `batch` names the inputs that hold the batch."""
    seen = {value for value in step.inputs if value.name in batch}
    shared, work = [], []
    later: set[ir.Value] = set()
    for node in step:
        reads = set(node.inputs)
        if str(node.name).startswith(_AFTER) or reads & later:
            later.update(node.outputs)
        elif reads & seen:
            work.append(node)
            seen.update(node.outputs)
        else:
            shared.append(node)
    inside = set(work)
    across = [
        value
        for node in work
        for value in node.outputs
        if value in step.outputs or any(user not in inside for user, _ in value.uses())
    ]
    return Parts(shared, work, across)


def _is_of_network(node: ir.Node) -> bool:
    """Whether a node is one of the network: neither of the loss and the metrics nor of their gradients.

    A network from elsewhere may call its values as it likes, but its nodes know where they stand.
    """
    known = node.metadata_props.keys()
    if "cnnc.forward" in known or (str(node.name).startswith("grad/") and "cnnc.wrt" in known):
        return False
    return "cnnc.where" in known or not f"{node.name}/".startswith(("loss/", "metrics/"))


def joined(builder: Builder, value: ir.Value, given: Sequence[ir.Value]) -> ir.Value:
    """What `value` is for the whole batch, from what it is for each of its equal parts."""
    if type_of(value).dtype.is_floating_point():
        total = builder.op("Sum", *given, dims=dims_of(value))
    else:
        total = given[0]
        for part in given[1:]:
            total = builder.op("Add", total, part)
    assert isinstance(total, ir.Value)
    return builder.op("Mul", total, 1.0 / len(given)) if _joined(value) == "mean" else total


def _joined(value: ir.Value) -> str | None:
    """How a value of the chunks becomes that of the batch: ``mean``, ``sum``, or not at all."""
    name = str(value.name)
    if name == LOSS or _is_gradient(value):
        return "mean"
    return "sum" if name.startswith("metrics/") else None


def _is_gradient(value: ir.Value) -> bool:
    return str(value.name).startswith("grad/")


def copy_nodes(builder: Builder, nodes: Sequence[ir.Node], values: dict[ir.Value, ir.Value]) -> None:
    """Append copies; a gradient's note of its forward node names the copy of that node."""
    names: dict[str, str] = {}
    for node in nodes:
        outputs = copy_node(builder, node, [None if v is None else values[v] for v in node.inputs])
        copied = outputs[0].producer()
        assert copied is not None
        names[str(node.name)] = str(copied.name)
        if (forward := node.metadata_props.get("cnnc.forward")) in names:
            copied.metadata_props["cnnc.forward"] = names[forward]
        for value, copy in zip(node.outputs, outputs, strict=True):
            copy_note(value, copy)
            values[value] = copy


def _zero(builder: Builder, gradients: Sequence[ir.Value]) -> ir.Value:
    """A zero that is known once all of `gradients` are."""
    firsts = [builder.op("Slice", builder.op("Reshape", g, [-1]), [0], [1], [0]) for g in gradients]
    return builder.op("Mul", builder.op("ReduceSum", builder.op("Concat", *firsts, axis=0), keepdims=0), 0.0)
