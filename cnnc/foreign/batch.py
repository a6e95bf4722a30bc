"""Sizes that grow with the batch, and whether a graph keeps the examples of a batch apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from onnx import NodeProto

from cnnc.errors import ModelError
from cnnc.foreign.protos import attributes, label

Dim = int | str | None
"""A size; ``"N"`` or a multiple of it, ``"4*N"``; None where it depends on data."""

BATCH = "N"
_AXIS = {
    **dict.fromkeys(
        ("Concat", "Gather", "GatherElements", "ScatterElements", "Split", "ArgMax", "ArgMin"), 0
    ),
    **dict.fromkeys(("Softmax", "LogSoftmax", "Hardmax", "LpNormalization", "TopK"), -1),
}
"""Operators that mix elements along one axis, and which it is where their attribute does not say."""


class BatchDependence(ModelError):  # noqa: N818 -- a finding, which has a way out
    """A graph was made for one size of the batch, and what it computes would not be the same for others."""


def shown(shapes: Sequence[tuple[int, ...] | None], batches: Sequence[int]) -> tuple[Dim, ...] | None:
    """One shape from those that a value has for several batches."""
    known = [shape for shape in shapes if shape is not None]
    if len(known) < len(shapes) or len({len(shape) for shape in known}) > 1:
        return None
    return tuple(_dim(sizes, batches) for sizes in zip(*known, strict=True))


def _dim(sizes: Sequence[int], batches: Sequence[int]) -> Dim:
    if len(set(sizes)) == 1:
        return sizes[0]
    factor, rest = divmod(sizes[0], batches[0])
    if rest or any(size != factor * batch for size, batch in zip(sizes, batches, strict=True)):
        return None
    return BATCH if factor == 1 else f"{factor}*{BATCH}"


def check_apart(
    node: NodeProto, shapes: Mapping[str, tuple[Dim, ...] | None], axis: int | None = None
) -> None:
    """Raise BatchDependence where a node mixes what belongs to different examples.

    Only asked of a graph that was made for one example: there nothing says which axis is the batch but the
    sizes that grow with it. `axis` is the one that an input names (of a CumSum), where it is known.
    """
    shape = shapes.get(node.input[0]) if node.input else None
    output = shapes.get(node.output[0])
    if shape is None or output is None:
        return
    grows = {axis for axis, dim in enumerate(shape) if not isinstance(dim, int)}
    if not grows:
        return
    if None in output:
        raise BatchDependence(f"{label(node)} gives a shape that is no multiple of the batch")
    if all(isinstance(dim, int) for dim in output):
        raise BatchDependence(f"{label(node)} gives one result for all examples")
    touched = _axes(node, len(shape), axis)
    if touched is not None and grows & touched:
        raise BatchDependence(f"{label(node)} works along the axis of the batch")


def _axes(node: NodeProto, rank: int, named: int | None) -> set[int] | None:
    """The axes along which an operator mixes elements, where an attribute or an input names one."""
    if node.op_type in _AXIS:
        return {int(attributes(node).get("axis", _AXIS[node.op_type])) % rank}
    if node.op_type == "CumSum":
        return {*range(rank)} if named is None else {named % rank}
    if node.op_type in ("BatchNormalization", "InstanceNormalization", "LRN", "PRelu"):
        return {1}
    if node.op_type == "LayerNormalization":
        return set(range(int(attributes(node).get("axis", -1)) % rank, rank))
    return None
