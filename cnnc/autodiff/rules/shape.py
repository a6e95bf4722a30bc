"""Operators that move all elements, and compute nothing."""

from __future__ import annotations

from cnnc.autodiff.rule import Context, Gradients, Value, rule
from cnnc.ir import Dim, is_static


@rule("Reshape", "Flatten", "Squeeze", "Unsqueeze")
def reshape(op: Context, dy: Value) -> Gradients:
    return back_to(op, dy, op.x)


@rule("Transpose")
def transpose(op: Context, dy: Value) -> Gradients:
    rank = len(op.dims(op.x))
    perm = op.attr("perm") or list(reversed(range(rank)))
    return op.Transpose(dy, perm=[perm.index(i) for i in range(rank)])


@rule("Concat")
def concat(op: Context, dy: Value) -> Gradients:
    """Each input gets its slice of dy."""
    axis = op.attr("axis") % len(op.dims(op.y))
    inputs = op.present
    sizes = [op.dims(value)[axis] for value in inputs]
    if is_static(sizes) or len(inputs) == 1:
        return op.split(dy, sizes, axis)
    lengths = [op.Shape(value, start=axis, end=axis + 1) for value in inputs]
    return op.Split(dy, op.Concat(*lengths, axis=0), axis=axis, outputs=len(inputs))


@rule("Split")
def split(op: Context, *dys: Value | None) -> Gradients:
    """The parts side by side; one that the loss does not depend on gives zeros."""
    parts = [op.zeros(y) if dy is None else dy for y, dy in zip(op.node.outputs, dys, strict=True)]
    return op.Concat(*parts, axis=op.attr("axis"))


@rule("Expand")
def expand(op: Context, dy: Value) -> Gradients:
    return dy, None


@rule("Tile")
def tile(op: Context, dy: Value) -> Gradients:
    """The sum of all copies: each repeated axis becomes two, of which the first counts copies."""
    known = op.known(1)
    counts: list[Dim] = (
        [op.builder.unique("copies") for _ in op.dims(op.x)] if known is None else known.tolist()
    )
    dims: list[Dim] = []
    lengths: list[Value] = []
    copies = []
    for axis, (size, count) in enumerate(zip(op.dims(op.x), counts, strict=True)):
        if count != 1:
            copies.append(len(dims))
            dims.append(count)
            lengths.append(op.Slice(op.inputs[1], [axis], [axis + 1]))
        dims.append(size)
        lengths.append(op.Shape(op.x, start=axis, end=axis + 1))
    if not copies:
        return dy
    target = dims if is_static(dims) else op.Concat(*lengths, axis=0)
    return op.ReduceSum(op.Reshape(dy, target, dims=dims), copies, keepdims=0)


@rule("SpaceToDepth")
def space_to_depth(op: Context, dy: Value) -> Gradients:
    return op.DepthToSpace(dy, blocksize=op.attr("blocksize"))


@rule("DepthToSpace")
def depth_to_space(op: Context, dy: Value) -> Gradients:
    """SpaceToDepth, whose channels are [row in block, column in block, channel], the order of DCR."""
    block = op.attr("blocksize")
    dx = op.SpaceToDepth(dy, blocksize=block)
    if op.attr("mode") == "DCR":
        return dx
    batch, channels = op.dims(dy)[:2]
    dims = (batch, block * block, channels, op.builder.unique("area"))
    return back_to(op, op.Transpose(op.Reshape(dx, [0, *dims[1:3], -1], dims=dims), perm=[0, 2, 1, 3]), op.x)


def back_to(op: Context, dy: Value, like: Value) -> Value:
    """dy in the shape of `like`, which has as many elements."""
    dims = op.dims(like)
    have = op.dims(dy)
    movable = [d for i, d in enumerate(dims) if isinstance(d, str) and not (i < len(have) and have[i] == d)]
    if len(movable) <= 1:
        return op.reshape(dy, dims)
    reshaped: Value = op.Reshape(dy, op.Shape(like), dims=dims)
    return reshaped
