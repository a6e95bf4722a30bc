"""Operators that cut something off, or put something around."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from cnnc.autodiff.rule import Context, Gradients, Value, rule
from cnnc.ir import Dim, is_static

END = 2**31 - 1
"""Beyond every axis; within int32, in which some runtimes hold indices."""

Number = int | Value
"""A place on an axis or a number of elements: known, or an int64 tensor of one element."""


@rule("Trilu")
def trilu(op: Context, dy: Value) -> Gradients:
    return op.Trilu(dy, *op.inputs[1:], upper=op.attr("upper"))


@rule("Slice")
def slice_(op: Context, dy: Value) -> Gradients:
    """dy with zeros around it, after its steps are undone: flipped, and with zeros between its elements."""
    rank = len(op.dims(op.x))
    starts, ends = _numbers(op, 1), _numbers(op, 2)
    axes = [axis % rank for axis in op.constant(3) or range(len(starts))]
    steps = op.constant(4) or [1] * len(axes)
    pads: list[Number] = [0] * (2 * rank)
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        pads[axis], pads[axis + rank] = _margins(op, axis, start, end, step)
    dx = _undo_steps(op, dy, dict(zip(axes, steps, strict=True)))
    return dx if pads == [0] * (2 * rank) else op.Pad(dx, _vector(op, pads), dims=op.dims(op.x))


@rule("Pad")
def pad(op: Context, dy: Value) -> Gradients:
    rank = len(op.dims(op.x))
    axes = [axis % rank for axis in op.constant(3) or range(rank)]
    mode = op.attr("mode")
    if mode == "constant":
        value = op.input(2)
        around = _around(op, dy) if value is not None and op.needed[2] else None
        return (_crop(op, dy, axes), None, around)[: len(op.inputs)]
    pads = op.constant(1) or []
    if min(pads, default=0) < 0 or mode not in ("edge", "reflect"):
        raise op.unsupported(f"mode='{mode}' and the pads {pads}")
    for axis, begin, end in zip(axes, pads[: len(axes)], pads[len(axes) :], strict=True):
        if begin or end:
            dy = _fold(op, dy, axis, begin, end, mode)
    return dy


def _margins(op: Context, axis: int, start: Number, end: Number, step: int) -> tuple[Number, Number]:
    """How many elements of the axis lie before the first one that the slice took, and behind the last."""
    size = op.dims(op.x)[axis]
    if isinstance(start, int) and isinstance(end, int):
        if isinstance(size, int):
            places = range(size)[start:end:step]
            return (min(places), size - 1 - max(places)) if places else (0, size)
        if (start, step) == (0, 1) and end >= END:
            return 0, 0
    length = op.Shape(op.x, start=axis, end=axis + 1)
    taken = op.Slice(
        op.Range(0, op.Squeeze(length), 1), _vector(op, [start]), _vector(op, [end]), [0], [step]
    )
    behind = op.Sub(op.Sub(length, 1), op.ReduceMax(taken, keepdims=1))
    return op.ReduceMin(taken, keepdims=1), behind


def _undo_steps(op: Context, dy: Value, steps: Mapping[int, int]) -> Value:
    """dy in the order of the input, with the zeros of the elements that the steps left out."""
    flipped = [axis for axis, step in steps.items() if step < 0]
    if flipped:
        dy = _flip(op, dy, flipped)
    wide = {axis: abs(steps[axis]) for axis in sorted(steps) if abs(steps[axis]) > 1}
    if not wide:
        return dy
    # Behind each element an axis of its own, filled with zeros; all but those of the last one are kept.
    dims = op.dims(dy)
    strides = [wide.get(axis, 1) for axis in range(len(dims))]
    behind = [axis + i + 1 for i, axis in enumerate(wide)]
    zeros = [0] * (len(dims) + len(wide))
    for axis, stride in zip(behind, wide.values(), strict=True):
        zeros[axis] = stride - 1
    apart = op.Pad(op.Unsqueeze(dy, behind), [0] * len(zeros) + zeros)
    stretched: list[Dim] = [
        d * s if isinstance(d, int) else d if s == 1 else op.builder.unique("stretched")
        for d, s in zip(dims, strides, strict=True)
    ]
    shape = stretched if is_static(stretched) else op.Mul(op.Shape(dy), strides)
    dx = op.Reshape(apart, shape, dims=stretched)
    return op.Slice(dx, [0] * len(wide), [1 - stride for stride in wide.values()], list(wide))


def _crop(op: Context, dy: Value, axes: Sequence[int]) -> Value:
    """dy without what was put around; negative pads, which cut off, give zeros."""
    dims, rank = op.dims(op.x), len(op.dims(op.x))
    count = len(axes)
    if op.known(1) is None:
        put = op.Max(op.inputs[1], 0)
        cut = op.Max(op.Neg(op.inputs[1]), 0)
        ends = op.Sub(op.Gather(op.Shape(dy), list(axes)), op.Slice(put, [count], [2 * count]))
        kept = op.Slice(dy, op.Slice(put, [0], [count]), ends, list(axes))
        return op.Pad(kept, cut, None, op.input(3), dims=dims)
    pads = op.constant(1) or []
    begins = [max(pad, 0) for pad in pads[:count]]
    ends = [-pad if pad > 0 else END for pad in pads[count:]]
    cut = [0] * (2 * rank)
    for i, pad in enumerate(pads):
        cut[axes[i % count] + (rank if i >= count else 0)] = max(-pad, 0)
    if not any(cut):
        return op.Slice(dy, begins, ends, list(axes), dims=dims)
    return op.Pad(op.Slice(dy, begins, ends, list(axes)), cut, dims=dims)


def _around(op: Context, dy: Value) -> Value:
    """The gradient of the number that was put around."""
    ring = op.Pad(op.zeros(op.x), op.inputs[1], 1.0, *op.inputs[3:], dims=op.dims(op.y))
    return op.Mul(dy, ring)


def _fold(op: Context, dy: Value, axis: int, begin: int, end: int, mode: str) -> Value:
    """dy along one axis, with what was put at its ends added to where it was taken from.

    That is the outermost element (edge), or as many elements beside it in reverse (reflect).
    """
    dx = op.Slice(dy, [begin], [-end or END], [axis])
    for put, start, stop in ((begin, 0, begin), (end, -end, END)):
        if not put:
            continue
        outside = op.Slice(dy, [start], [stop], [axis])
        if mode == "edge":
            outermost = (0, 1) if start == 0 else (-1, END)
            dx = _add(op, dx, op.ReduceSum(outside, [axis], keepdims=1), axis, *outermost)
        else:
            beside = (1, 1 + put) if start == 0 else (-1 - put, -1)
            dx = _add(op, dx, _flip(op, outside, [axis]), axis, *beside)
    return dx


def _add(op: Context, x: Value, part: Value, axis: int, start: int, stop: int) -> Value:
    """x with `part` added to its elements from start to stop along an axis."""
    size = op.dims(x)[axis]
    pieces = []
    for low, high in ((0, start), (start, stop), (stop, END)):
        if low == high or (isinstance(size, int) and not range(size)[low:high]):
            continue
        piece = op.Slice(x, [low], [high], [axis])
        pieces.append(op.Add(piece, part) if low == start else piece)
    return op.Concat(*pieces, axis=axis)


def _flip(op: Context, x: Value, axes: Sequence[int]) -> Value:
    """x in reverse order along the axes."""
    backwards = [-1] * len(axes)
    return op.Slice(x, backwards, [-END - 1] * len(axes), axes, backwards)


def _numbers(op: Context, index: int) -> list[Number]:
    """The entries of a small vector input, known or computed."""
    known = op.known(index)
    if known is not None:
        return known.tolist()
    vector = op.present[index]
    (count,) = op.dims(vector)
    if not isinstance(count, int):
        raise op.unsupported(f"input '{vector.name}' of unknown length")
    return [op.Slice(vector, [i], [i + 1]) for i in range(count)]


def _vector(op: Context, numbers: Sequence[Number]) -> Value | list[int]:
    """The numbers as one int64 tensor."""
    known = [number for number in numbers if isinstance(number, int)]
    if len(known) == len(numbers):
        return known
    parts: list[list[int] | Value] = []
    for number in numbers:
        if not isinstance(number, int):
            parts.append(number)
        elif parts and isinstance(parts[-1], list):
            parts[-1].append(number)
        else:
            parts.append([number])
    return op.Concat(*parts, axis=0)
