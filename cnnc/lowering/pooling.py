"""Bodies of the pooling gradients: x [N, C, …], dy and y [N, C, …] of the pooled size.

Where elements of a window tie for its maximum, each gets an equal share of dy, in every body.
"""

from __future__ import annotations

import math

import numpy as np

from cnnc.ir import is_static
from cnnc.ir.windows import Window
from cnnc.lowering.body import Call, Value, body
from cnnc.lowering.padding import unpad


def _tiles(call: Call) -> bool:
    return call.window.tiles and is_static(call.dims("x")[2:]) and not call.attr("ceil_mode")


def _static(call: Call) -> bool:
    return is_static(call.dims("x")[2:]) and is_static(call.dims("dy")[2:])


@body("MaxPoolGrad", legal=_tiles)
def nearest(op: Call, dy: Value, x: Value, y: Value) -> Value:
    """Windows side by side: y and dy are spread by nearest Resize, the maxima found by Equal."""
    window = op.window
    covered = _covered(op, x)
    mask = op.CastLike(op.Equal(covered, _enlarge(op, y)), x)
    taps = math.prod(window.kernel_shape)
    ties = op.AveragePool(mask, kernel_shape=window.kernel_shape, strides=window.strides)
    share = op.Div(dy, op.Mul(ties, float(taps)))
    return _uncover(op, op.Mul(_enlarge(op, share), mask), x)


@body("MaxPoolGrad", legal=_static)
def columns(op: Call, dy: Value, x: Value, y: Value) -> Value:
    """Any window: columns by a Conv with one-hot filters, the maxima found by Equal, and the way back."""
    window = _full_window(op)
    taps = math.prod(window.kernel_shape)
    assert x.dtype is not None
    filters = op.builder.constant(np.eye(taps).reshape(taps, 1, *window.kernel_shape), x.dtype)
    # What lies outside x must never be a maximum; finite, because the Conv multiplies it with zeros.
    lowest = float(np.finfo(x.dtype.numpy()).min)
    pads = [0, 0, *window.begins, 0, 0, *window.ends]
    images = _as_images(op, op.Pad(x, pads, op.CastLike(lowest, x)) if any(pads) else x)
    seen = op.Conv(images, filters, strides=window.strides, dilations=window.dilations)
    mask = op.CastLike(op.Equal(seen, _as_images(op, y)), x)
    share = op.Div(_as_images(op, dy), op.ReduceSum(mask, [1], keepdims=1))
    return _scatter(op, op.Mul(mask, share), filters, window, x)


@body("AveragePoolGrad", legal=_tiles)
def nearest_share(op: Call, dy: Value, x: Value) -> Value:
    """Windows side by side: each element gets dy / window size, spread by nearest Resize."""
    taps = math.prod(op.window.kernel_shape)
    return _uncover(op, _enlarge(op, op.Div(dy, float(taps))), x)


@body("AveragePoolGrad", legal=_static)
def transposed(op: Call, dy: Value, x: Value) -> Value:
    """Any window: dy over the number of elements averaged, then a ConvTranspose with ones."""
    window = _full_window(op)
    assert x.dtype is not None
    counts = op.builder.constant(_counts(op, window), x.dtype)
    ones = op.builder.constant(np.ones((1, 1, *window.kernel_shape)), x.dtype)
    return _scatter(op, _as_images(op, op.Div(dy, counts)), ones, window, x)


def _enlarge(op: Call, value: Value) -> Value:
    """Each element repeated over its window."""
    window = op.window
    scales = np.array([1, 1, *window.strides], np.float32)
    batch, channels, *sizes = op.dims(value)
    dims = [batch, channels, *(int(d) * s for d, s in zip(sizes, window.strides, strict=True))]
    return op.Resize(
        value,
        None,
        scales,
        mode="nearest",
        coordinate_transformation_mode="asymmetric",
        nearest_mode="floor",
        dims=dims,
    )


def _remainder(op: Call, x: Value) -> list[int]:
    """How many trailing elements of each spatial axis no window covers."""
    return [int(d) % s for d, s in zip(op.dims(x)[2:], op.window.strides, strict=True)]


def _covered(op: Call, x: Value) -> Value:
    rest = _remainder(op, x)
    if not any(rest):
        return x
    ends = [int(d) - r for d, r in zip(op.dims(x)[2:], rest, strict=True)]
    return op.Slice(x, [0] * len(rest), ends, list(range(2, 2 + len(rest))))


def _uncover(op: Call, dx: Value, x: Value) -> Value:
    rest = _remainder(op, x)
    return op.Pad(dx, [0] * (4 + len(rest)) + rest) if any(rest) else dx


def _full_window(op: Call) -> Window:
    """The window with the end pads that cover exactly what the pooled size covers (ceil_mode included).

    A negative end pad would mean trailing elements that no window sees: they stay, and get no gradient.
    """
    window = op.window
    needed = [
        (int(out) - 1) * s + extent
        for out, s, extent in zip(op.dims("dy")[2:], window.strides, window.extents, strict=True)
    ]
    ends = [max(n - int(d) - b, 0) for n, d, b in zip(needed, op.dims("x")[2:], window.begins, strict=True)]
    return Window(window.kernel_shape, window.strides, (*window.begins, *ends), window.dilations)


def _as_images(op: Call, value: Value) -> Value:
    """[N, C, …] → [N·C, 1, …]: channels are pooled one by one."""
    batch, channels, *sizes = op.dims(value)
    images = batch * int(channels) if isinstance(batch, int) else f"{batch}*{channels}"
    return op.Reshape(value, [-1, 1, *sizes], dims=(images, 1, *sizes))


def _scatter(op: Call, columns: Value, filters: Value, window: Window, x: Value) -> Value:
    """The adjoint of a Conv over the padded images of x: ConvTranspose, its pads cut off, channels back."""
    dx = op.ConvTranspose(
        columns,
        filters,
        kernel_shape=window.kernel_shape,
        strides=window.strides,
        dilations=window.dilations,
    )
    return op.Reshape(unpad(op, dx, x), [-1, *op.dims(x)[1:]], dims=op.dims(x))


def _counts(op: Call, window: Window) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    """How many elements each window averages, [1, 1, …]: pads count where count_include_pad says so.

    ONNX counts the explicit pads then, never what ceil_mode adds beyond them.
    """
    include = bool(op.attr("count_include_pad"))
    result = np.ones((1, 1))
    for axis in range(window.rank):
        size = int(op.dims("x")[axis + 2])
        low = -window.begins[axis] if include else 0
        high = size + op.window.ends[axis] if include else size
        starts = np.arange(int(op.dims("dy")[axis + 2])) * window.strides[axis] - window.begins[axis]
        taps = starts[:, None] + np.arange(window.kernel_shape[axis]) * window.dilations[axis]
        along = ((taps >= low) & (taps < high)).sum(axis=1).astype(np.float64)
        result = result[..., None] * along
    return result
