"""Windows that lie side by side: sums over them, and each element repeated over its own."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from cnnc.ir import Dim, is_static
from cnnc.lowering.body import Call, Value
from cnnc.lowering.padding import times

_WIDEST = 32
"""Elements of a row up to which a product sums faster than ONNX Runtime's AveragePool on the CPU."""


def tile_sum(op: Call, value: Value, tile: Sequence[int], dims: Sequence[Dim]) -> Value:
    """The sum of each tile of the spatial axes, which the tiles cover: of these dimensions.

    Narrow images by a product: the rows that a tile spans lie one after the other in memory, so that they are
    one long row, and tiles are columns of zeros and ones.
    """
    batch, channels, *sizes = op.dims(value)
    if len(sizes) == 2 and is_static(sizes) and int(sizes[1]) <= _WIDEST:
        (height, width), (down, across) = (int(size) for size in sizes), tile
        rows = op.reshape(value, (batch, channels, height // down, down * width))
        columns = np.tile(np.repeat(np.eye(width // across), across, axis=0), (down, 1))
        return op.MatMul(rows, op.builder.constant(columns, value.dtype), dims=dims)
    mean = op.AveragePool(value, kernel_shape=tile, strides=tile, dims=dims)
    return op.Mul(mean, float(math.prod(tile)))


def enlarge(op: Call, value: Value) -> Value:
    """Each element repeated over its window."""
    strides = op.window.strides
    scales = np.array([1, 1, *strides], np.float32)
    batch, channels, *sizes = op.dims(value)
    dims = [batch, channels, *(times(size, stride) for size, stride in zip(sizes, strides, strict=True))]
    return op.Resize(
        value,
        None,
        scales,
        mode="nearest",
        coordinate_transformation_mode="asymmetric",
        nearest_mode="floor",
        dims=dims,
    )


def covered(op: Call, x: Value, y: Value) -> Value:
    """x without the trailing elements that no window sees."""
    sizes, strides = op.dims(x)[2:], op.window.strides
    axes = list(range(2, len(sizes) + 2))
    if is_static(sizes):
        ends = [int(size) // s * s for size, s in zip(sizes, strides, strict=True)]
        return x if tuple(ends) == sizes else op.Slice(x, [0] * len(axes), ends, axes)
    dims = [*op.dims(x)[:2], *(times(size, s) for size, s in zip(op.dims(y)[2:], strides, strict=True))]
    return op.Slice(x, [0] * len(axes), op.Mul(op.Shape(y, start=2), strides), axes, dims=dims)


def uncover(op: Call, dx: Value, x: Value) -> Value:
    """dx with zeros for those elements."""
    sizes, have = op.dims(x)[2:], op.dims(dx)[2:]
    if not is_static(sizes):
        rest = op.Sub(op.Shape(x), op.Shape(dx))
        return op.Pad(dx, op.Concat([0] * len(op.dims(x)), rest, axis=0), dims=op.dims(x))
    missing = [int(size) - int(h) for size, h in zip(sizes, have, strict=True)]
    return op.Pad(dx, [0] * (4 + len(sizes)) + missing) if any(missing) else dx
