"""Bodies of the gradient of Resize, which is linear in x and works on one axis after the other.

Along each axis the output is a matrix times the input, and dx the transposed matrix times dy.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from cnnc.lowering.body import Call, Value, body
from cnnc.lowering.tiles import tile_sum

Length = list[int] | Value
"""Some sizes of a shape, known or an int64 tensor."""

_REPEATS = {
    "asymmetric": ("floor",),
    "half_pixel": ("round_prefer_floor", "round_prefer_ceil"),
    "half_pixel_symmetric": ("round_prefer_floor", "round_prefer_ceil"),
    "pytorch_half_pixel": ("round_prefer_floor", "round_prefer_ceil"),
}
"""Where nearest resizing by a whole number repeats each element so often."""


_MODES = (
    "mode",
    "coordinate_transformation_mode",
    "nearest_mode",
    "cubic_coeff_a",
    "exclude_outside",
    "antialias",
)


def _is_repetition(call: Call) -> bool:
    """Nearest, by whole numbers, of spatial axes alone."""
    factors = _factors(call)
    return (
        call.attr("mode") == "nearest"
        and call.attr("nearest_mode") in _REPEATS.get(call.attr("coordinate_transformation_mode"), ())
        and len(factors) > 2
        and factors[:2] == [1, 1]
        and all(factor.is_integer() and factor >= 1 for factor in factors)
    )


@body("ResizeGrad", legal=_is_repetition)
def pooled(op: Call, dy: Value, x: Value) -> Value:
    """Nearest by whole numbers: the sum of the elements that repeat one."""
    return tile_sum(op, dy, [int(factor) for factor in _factors(op)[2:]], op.dims(x))


@body("ResizeGrad")
def products(op: Call, dy: Value, x: Value) -> Value:
    """A product with each axis's matrix, which Resize itself gives: it is what Resize makes of the identity.

    So it is right in every mode, and whatever a runtime rounds in its own way. Runtimes compute the matrices
    once, where sizes are static.
    """
    rank = len(op.dims(x))
    moving = [axis for axis in range(rank) if _moves(op, axis)]
    dims = [(op.dims(dy) if axis in moving else op.dims(x))[axis] for axis in range(rank)]
    for axis in reversed(moving):
        matrix = _matrix(op, dy, x, axis)
        dims[axis] = op.dims(x)[axis]
        if axis == rank - 2:
            dy = op.MatMul(matrix, dy, dims=dims)
            continue
        swap = [rank - 1 if i == axis else axis if i == rank - 1 else i for i in range(rank)]
        last = dy if axis == rank - 1 else op.Transpose(dy, perm=swap)
        last = op.MatMul(last, op.Transpose(matrix, perm=[1, 0]), dims=[dims[i] for i in swap])
        dy = last if axis == rank - 1 else op.Transpose(last, perm=swap)
    return dy


def _factors(op: Call) -> list[float]:
    """Output size over input size of each axis; 0 where it is told by sizes that are not static."""
    factors = []
    for scale, size, given in zip(op.attr("scales"), op.dims("dy"), op.dims("x"), strict=True):
        static = isinstance(size, int) and isinstance(given, int)
        factors.append(scale or (int(size) / int(given) if static else 0.0))
    return factors


def _region(op: Call, axis: int) -> list[float]:
    """The part of the axis that tf_crop_and_resize takes, all of it being from 0 to 1."""
    return [op.attr("roi")[axis], op.attr("roi")[axis + len(op.dims("x"))]]


def _moves(op: Call, axis: int) -> bool:
    return op.attr("scales")[axis] != 1.0 or _region(op, axis) != [0.0, 1.0]


def _matrix(op: Call, dy: Value, x: Value, axis: int) -> Value:
    """[input size, output size]: the rows of the identity as so many images, resized along this axis."""
    rank, leader = len(op.dims(x)), _leader(op, axis)
    mover = _mover(op, axis) if leader is None else None
    images = next(i for i in range(rank) if i not in (axis, leader, mover))
    others = [i for i in range(rank) if i not in (axis, images)]
    size, length = op.dims(x)[axis], _length(op, x, axis)
    square = op.ConstantOfShape(_join(op, [length, length]), dims=[size, size])
    assert x.dtype is not None
    identity = op.Unsqueeze(op.EyeLike(square, dtype=int(x.dtype)), others)
    modes = {name: op.attr(name) for name in _MODES}
    if leader is not None:
        resized = _led(op, identity, axis, leader, modes)
    else:
        ends = {axis: op.dims(dy)[axis], images: size, mover: 2}
        dims = [ends.get(i, 1) for i in range(rank)]
        resized = op.Resize(identity, *_told(op, dy, length, axis, images, mover), **modes, dims=dims)
    if mover is not None:
        resized = op.Slice(resized, [0], [1], [mover])
    matrix = op.Squeeze(resized, others)
    return matrix if axis > images else op.Transpose(matrix, perm=[1, 0])


def _told(op: Call, dy: Value, length: Length, axis: int, images: int, mover: int | None) -> list[Any]:
    """How far to resize along one axis: region, scales and sizes, as Resize has them; a mover is doubled."""
    rank, scale = len(op.attr("scales")), op.attr("scales")[axis]
    region = None
    if op.attr("coordinate_transformation_mode") == "tf_crop_and_resize":
        region = np.repeat(np.array([0, 1], np.float32), rank)
        region[[axis, axis + rank]] = _region(op, axis)
    if scale:
        scales = np.ones(rank, np.float32)
        scales[axis] = scale
        if mover is not None:
            scales[mover] = 2.0
        return [region, scales]
    sizes: list[Length] = [[1]] * rank
    sizes[axis], sizes[images] = _length(op, dy, axis), length
    return [region, None, _join(op, sizes)]


def _leader(op: Call, axis: int) -> int | None:
    """The axis whose sizes make the scale, where that alone does not make this axis's size in dy.

    So it is where an aspect ratio is kept: sizes are rounded, and a scale alone rounds them down.
    """
    scales, before, after = op.attr("scales"), op.dims("x"), op.dims("dy")
    scale, size = np.float32(scales[axis]), before[axis]
    if not scale or not isinstance(size, int):
        return None
    if {int(scale * np.float32(size)), int(float(scale) * size)} == {after[axis]} != {size}:
        return None
    for other, (have, gives) in enumerate(zip(before, after, strict=True)):
        static = isinstance(have, int) and isinstance(gives, int)
        if static and scales[other] == 0.0 and np.float32(int(gives)) / np.float32(int(have)) == scale:
            return other
    return None


def _led(op: Call, identity: Value, axis: int, leader: int, modes: dict[str, Any]) -> Value:
    """The identity resized along an axis, by the scale that the sizes of another axis make."""
    (before, size), (given, after) = ([int(op.dims(n)[i]) for i in (leader, axis)] for n in ("x", "dy"))
    copies = [before if i == leader else 1 for i in range(len(op.dims("x")))]
    larger = np.float32(after) / np.float32(size) > np.float32(op.attr("scales")[axis])
    resized = op.Resize(
        op.Expand(identity, copies),
        *(None, None, [given, after]),
        axes=[leader, axis],
        keep_aspect_ratio_policy="not_larger" if larger else "not_smaller",
        **modes,
    )
    return op.Slice(resized, [0], [1], [leader])


def _mover(op: Call, axis: int) -> int | None:
    """An axis whose size changes, where this one's does not although it is resized.

    ONNX Runtime copies what keeps its sizes, whatever the scales.
    """
    before, after, scales = op.dims("x"), op.dims("dy"), op.attr("scales")
    if before[axis] != after[axis] or not isinstance(before[axis], int) or not scales[axis]:
        return None
    for other, (have, gives) in enumerate(zip(before, after, strict=True)):
        if isinstance(have, int) and isinstance(gives, int) and have != gives and scales[other]:
            return other
    return None


def _length(op: Call, value: Value, axis: int) -> Length:
    """The size of one axis, as a shape of rank 1."""
    size = op.dims(value)[axis]
    return [size] if isinstance(size, int) else op.Shape(value, start=axis, end=axis + 1)


def _join(op: Call, lengths: Sequence[Length]) -> Length:
    """A shape from its parts, a constant where all are known: then runtimes compute what follows once."""
    if all(isinstance(length, list) for length in lengths):
        return [size for length in lengths if isinstance(length, list) for size in length]
    return op.Concat(*lengths, axis=0)
