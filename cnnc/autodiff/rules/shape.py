"""Operators that move elements and compute nothing."""

from __future__ import annotations

from cnnc.autodiff.rule import Context, Gradients, Value, rule


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
    inputs = [value for value in op.inputs if value is not None]
    sizes = [op.dims(value)[axis] for value in inputs]
    if all(isinstance(size, int) for size in sizes):
        parts = op.Split(dy, sizes, axis=axis, outputs=len(inputs))
    else:
        lengths = [op.Shape(value, start=axis, end=axis + 1) for value in inputs]
        parts = op.Split(dy, op.Concat(*lengths, axis=0), axis=axis, outputs=len(inputs))
    return [parts] if len(inputs) == 1 else list(parts)


@rule("Expand")
def expand(op: Context, dy: Value) -> Gradients:
    return dy, None


@rule("Slice")
def slice_(op: Context, dy: Value) -> Gradients:
    """dy with zeros around it, where the slice cut something off."""
    rank = len(op.dims(op.x))
    starts, _, axes, steps = (op.constant(i) for i in range(1, 5))
    starts = starts or []
    if any(step != 1 for step in steps or []):
        raise op.unsupported(f"the steps {steps}")
    pads = [0] * (2 * rank)
    for start, axis in zip(starts, axes or range(len(starts)), strict=True):
        size, length = op.dims(op.x)[axis], op.dims(op.y)[axis]
        if not isinstance(size, int) or not isinstance(length, int):
            raise op.unsupported(f"the symbolic size {size} of the axis that it cuts")
        begin = min(max(start + size if start < 0 else start, 0), size)
        pads[axis % rank], pads[axis % rank + rank] = begin, size - begin - length
    return op.Pad(dy, pads)


def back_to(op: Context, dy: Value, like: Value) -> Value:
    """dy in the shape of `like`, which has as many elements."""
    dims = op.dims(like)
    have = op.dims(dy)
    movable = [d for i, d in enumerate(dims) if isinstance(d, str) and not (i < len(have) and have[i] == d)]
    if len(movable) <= 1:
        return op.reshape(dy, dims)
    reshaped: Value = op.Reshape(dy, op.Shape(like), dims=dims)
    return reshaped
