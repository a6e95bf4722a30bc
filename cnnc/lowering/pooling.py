"""Bodies of the pooling gradients: x [N, C, …], dy and y [N, C, …] of the pooled size.

Where elements of a window tie for its maximum, each gets an equal share of dy, in every body.
"""

from __future__ import annotations

import math

import numpy as np

from cnnc.ir import is_static
from cnnc.ir.windows import Window
from cnnc.lowering.body import Call, Value, body


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
    """Any window: columns by a one-hot depthwise Conv, the maxima found by Equal, and the way back."""
    window = _full_window(op)
    batch, channels, *out = op.dims(dy)
    taps = math.prod(window.kernel_shape)
    assert x.dtype is not None
    one_hot = np.tile(
        np.eye(taps).reshape(taps, 1, *window.kernel_shape), (int(channels), *[1] * (window.rank + 1))
    )
    filters = op.builder.constant(one_hot, x.dtype)
    # What lies outside x must never be a maximum; finite, because the Conv multiplies it with zeros.
    lowest = float(np.finfo(x.dtype.numpy()).min)
    pads = [0, 0, *window.begins, 0, 0, *window.ends]
    padded = op.Pad(x, pads, op.CastLike(lowest, x)) if any(pads) else x
    steps = {"strides": window.strides, "dilations": window.dilations, "group": int(channels)}
    area = math.prod(int(d) for d in out)
    spread = op.Conv(padded, filters, **steps, dims=(batch, int(channels) * taps, *out))
    spread = op.reshape(spread, (batch, channels, taps, area))
    mask = op.CastLike(op.Equal(spread, op.reshape(y, (batch, channels, 1, area))), x)
    share = op.Div(op.reshape(dy, (batch, channels, 1, area)), op.ReduceSum(mask, [2], keepdims=1))
    back = op.reshape(op.Mul(mask, share), (batch, int(channels) * taps, *out))
    return _gather_windows(op, back, filters, window, x)


@body("AveragePoolGrad", legal=_tiles)
def nearest_share(op: Call, dy: Value, x: Value) -> Value:
    """Windows side by side: each element gets dy / window size, spread by nearest Resize."""
    taps = math.prod(op.window.kernel_shape)
    return _uncover(op, _enlarge(op, op.Div(dy, float(taps))), x)


@body("AveragePoolGrad", legal=_static)
def transposed(op: Call, dy: Value, x: Value) -> Value:
    """Any window: dy over the number of elements averaged, then a depthwise ConvTranspose with ones."""
    window = _full_window(op)
    channels = int(op.dims(x)[1])
    assert x.dtype is not None
    counts = op.builder.constant(_counts(op, window), x.dtype)
    ones = op.builder.constant(np.ones((channels, 1, *window.kernel_shape)), x.dtype)
    return _gather_windows(op, op.Div(dy, counts), ones, window, x)


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


def _gather_windows(op: Call, columns: Value, filters: Value, window: Window, x: Value) -> Value:
    """The adjoint of a depthwise Conv over the padded x: ConvTranspose, then the pads cut off."""
    batch, channels, *sizes = op.dims(x)
    out = op.dims(columns)[2:]
    spans = [
        (int(o) - 1) * s + extent for o, s, extent in zip(out, window.strides, window.extents, strict=True)
    ]
    dx = op.ConvTranspose(
        columns,
        filters,
        group=int(channels),
        kernel_shape=window.kernel_shape,
        strides=window.strides,
        dilations=window.dilations,
        dims=(batch, channels, *spans),
    )
    starts = list(window.begins)
    ends = [min(b + int(size), span) for b, size, span in zip(starts, sizes, spans, strict=True)]
    if any(starts) or ends != spans:
        dx = op.Slice(dx, starts, ends, list(range(2, 2 + window.rank)))
    missing = [int(size) - (e - s) for size, s, e in zip(sizes, starts, ends, strict=True)]
    return op.Pad(dx, [0] * (4 + window.rank) + missing) if any(missing) else dx


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
