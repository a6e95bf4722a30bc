"""Lists of tensors, as exporters write for ``torch.split`` and ``torch.cat``: each is known by its members.

Whatever a list holds is a tensor of the graph already, so that the list itself is gone. What only the run
decides (a place in it that the data compute, parts of an axis of unknown size) is refused with a reason.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from onnx import NodeProto, helper

from cnnc.errors import UnsupportedError
from cnnc.foreign.protos import attributes, label

if TYPE_CHECKING:
    from cnnc.foreign.walk import Walk

MOST_PARTS = 1024
"""Tensors that a list may hold."""


def take_apart(walk: Walk, node: NodeProto) -> None:
    """Note what a node does with lists, and append what stands for it. Raises UnsupportedError."""
    if node.op_type == "Identity":
        walk.rename(node.output[0], node.input[0])
    elif node.op_type in SEQUENCES:
        SEQUENCES[node.op_type](walk, node)
    else:
        raise UnsupportedError(f"{label(node)} reads a list of tensors, which cnnc can't follow there.")


def _construct(walk: Walk, node: NodeProto) -> None:
    walk.sequences[node.output[0]] = list(node.input)


def _insert(walk: Walk, node: NodeProto) -> None:
    members = [*_members(walk, node)]
    place = _place(walk, node, 2) if len(node.input) > 2 else len(members)
    if not -len(members) <= place <= len(members):
        raise UnsupportedError(f"{label(node)} inserts at {place} into a list of {len(members)}.")
    members.insert(place, node.input[1])
    walk.sequences[node.output[0]] = members


def _erase(walk: Walk, node: NodeProto) -> None:
    members = [*_members(walk, node)]
    del members[_inside(walk, node, len(members))]
    walk.sequences[node.output[0]] = members


def _at(walk: Walk, node: NodeProto) -> None:
    members = _members(walk, node)
    walk.rename(node.output[0], members[_inside(walk, node, len(members))])


def _length(walk: Walk, node: NodeProto) -> None:
    for world in walk.worlds:
        world.know(node.output[0], np.asarray(len(_members(walk, node)), np.int64))


def _split(walk: Walk, node: NodeProto) -> None:
    """By sizes, into parts of one size (the last one smaller), or into single elements."""
    given = attributes(node)
    sizes = walk.dims(node.input[0])
    axis = given.get("axis", 0) % len(sizes)
    size, told = sizes[axis], node.input[1] if len(node.input) > 1 else ""
    parts = walk.known(told) if told else np.asarray(1)
    if size is None or parts is None:
        raise UnsupportedError(f"{label(node)} splits into as many parts as the batch or the data say.")
    if parts.ndim == 0:
        part = max(int(parts), 1)
        parts = np.minimum(part, size - np.arange(0, size, part))
    if len(parts) > MOST_PARTS:
        raise UnsupportedError(f"{label(node)} splits into {len(parts):,} parts, too many to write out.")
    names = [walk.fresh(node.output[0]) for _ in parts]
    lengths = walk.constant(np.asarray(parts, np.int64))
    walk.append(helper.make_node("Split", [node.input[0], lengths], names, names[0], axis=axis))
    if not told and not given.get("keepdims", 1):
        dropped = walk.constant(np.array([axis], np.int64))
        rows, names = names, [walk.fresh(name) for name in names]
        for row, name in zip(rows, names, strict=True):
            walk.append(helper.make_node("Squeeze", [row, dropped], [name], name))
    walk.sequences[node.output[0]] = names


def _concat(walk: Walk, node: NodeProto) -> None:
    """Side by side on an axis that they have, or on a new one."""
    given, members = attributes(node), _members(walk, node)
    if given.get("new_axis", 0):
        place = walk.constant(np.array([given["axis"]], np.int64))
        members, tensors = [walk.fresh(name) for name in members], members
        for tensor, name in zip(tensors, members, strict=True):
            walk.append(helper.make_node("Unsqueeze", [tensor, place], [name], name))
    if not members:
        raise UnsupportedError(f"{label(node)} joins the tensors of a list that has none.")
    walk.append(helper.make_node("Concat", members, node.output, node.name, axis=given["axis"]))


SEQUENCES: dict[str, Callable[[Walk, NodeProto], None]] = {
    "ConcatFromSequence": _concat,
    "SequenceAt": _at,
    "SequenceConstruct": _construct,
    "SequenceEmpty": _construct,
    "SequenceErase": _erase,
    "SequenceInsert": _insert,
    "SequenceLength": _length,
    "SplitToSequence": _split,
}


def _members(walk: Walk, node: NodeProto) -> list[str]:
    return walk.sequences[node.input[0]]


def _place(walk: Walk, node: NodeProto, index: int) -> int:
    known = walk.known(node.input[index])
    if known is None or known.size != 1:
        raise UnsupportedError(f"{label(node)} takes a place in a list that the data compute.")
    return int(known.item())


def _inside(walk: Walk, node: NodeProto, count: int) -> int:
    """A place among `count` members, the last one where a node does not say."""
    place = _place(walk, node, 1) if len(node.input) > 1 else -1
    if not -count <= place < count:
        raise UnsupportedError(f"{label(node)} takes number {place} of a list of {count}.")
    return place
