"""How many elements each window of an AveragePool averages."""

from __future__ import annotations

import math

import numpy as np

from cnnc.ir import is_static
from cnnc.ir.windows import Window
from cnnc.lowering.body import Call, Value


def counts(op: Call, full: Window, x: Value) -> Value:
    """The divisor of each window, [1, 1, …] or a scalar.

    ONNX counts the explicit pads where count_include_pad says so, never what ceil_mode adds beyond them;
    the window `full` has both in its pads.
    """
    assert x.dtype is not None
    if not any(full.pads):
        return op.builder.constant(float(math.prod(full.kernel_shape)), x.dtype)
    if is_static((*op.dims(x)[2:], *op.dims("dy")[2:])):
        return op.builder.constant(_known(op), x.dtype)
    return _counted(op, full, x)


def _known(op: Call) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    """The counts where all sizes are static."""
    window, include = op.window, bool(op.attr("count_include_pad"))
    result = np.ones((1, 1))
    for axis in range(window.rank):
        size = int(op.dims("x")[axis + 2])
        low = -window.begins[axis] if include else 0
        high = size + window.ends[axis] if include else size
        starts = np.arange(int(op.dims("dy")[axis + 2])) * window.strides[axis] - window.begins[axis]
        taps = starts[:, None] + np.arange(window.kernel_shape[axis]) * window.dilations[axis]
        along = ((taps >= low) & (taps < high)).sum(axis=1).astype(np.float64)
        result = result[..., None] * along
    return result


def _counted(op: Call, full: Window, x: Value) -> Value:
    """The counts where only the run knows the sizes: a Conv of ones with ones."""
    assert x.dtype is not None
    one = op.builder.constant(1.0, x.dtype)
    shape = op.Concat([1, 1], op.Shape(x, start=2), axis=0)
    image = op.Expand(one, shape, dims=(1, 1, *op.dims(x)[2:]))
    pads = full.pads
    if op.attr("count_include_pad"):
        image = op.Pad(image, _around(op.window.pads), one)
        pads = tuple(more - counted for more, counted in zip(pads, op.window.pads, strict=True))
    ones = op.builder.constant(np.ones((1, 1, *full.kernel_shape)), x.dtype)
    return op.Conv(op.Pad(image, _around(pads)), ones, strides=full.strides, dilations=full.dilations)


def _around(pads: tuple[int, ...]) -> list[int]:
    """Spatial pads → pads of all axes of [1, 1, …]."""
    rank = len(pads) // 2
    return [0, 0, *pads[:rank], 0, 0, *pads[rank:]]
