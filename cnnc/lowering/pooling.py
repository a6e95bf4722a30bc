"""Bodies of the pooling gradients: x [N, C, …], dy and y [N, C, …] of the pooled size.

Where elements of a window tie for its maximum, each gets an equal share of dy, in every body.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from cnnc.ir import is_static
from cnnc.ir.windows import Window
from cnnc.lowering.averages import counts
from cnnc.lowering.body import Call, Value, body
from cnnc.lowering.padding import times, unpad


def _tiles(call: Call) -> bool:
    return call.window.tiles and not call.attr("ceil_mode")


@body("MaxPoolGrad", legal=_tiles)
def nearest(op: Call, dy: Value, x: Value, y: Value) -> Value:
    """Windows side by side: y and dy are spread by nearest Resize, the maxima found by Equal."""
    window = op.window
    mask = op.CastLike(op.Equal(_covered(op, x, y), _enlarge(op, y)), x)
    taps = math.prod(window.kernel_shape)
    ties = op.AveragePool(mask, kernel_shape=window.kernel_shape, strides=window.strides)
    share = op.Div(dy, op.Mul(ties, float(taps)))
    return _uncover(op, op.Mul(_enlarge(op, share), mask), x)


@body("MaxPoolGrad")
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
    return _scatter(op, op.Mul(mask, share), filters, x)


@body("AveragePoolGrad", legal=_tiles)
def nearest_share(op: Call, dy: Value, x: Value) -> Value:
    """Windows side by side: each element gets dy / window size, spread by nearest Resize."""
    taps = math.prod(op.window.kernel_shape)
    return _uncover(op, _enlarge(op, op.Div(dy, float(taps))), x)


@body("AveragePoolGrad")
def transposed(op: Call, dy: Value, x: Value) -> Value:
    """Any window: dy over the number of elements averaged, then a ConvTranspose with ones."""
    share = op.Div(dy, counts(op, _full_window(op), x))
    return _collect(op, share, x)


@body("LpPoolGrad")
def power_rule(op: Call, dy: Value, x: Value, y: Value) -> Value:
    """dx = x·|x|ᵖ⁻² · Σ dy/yᵖ⁻¹ over the windows that see x; 0 from a window of zeros."""
    p = op.attr("p")
    power = op.builder.constant(float(p - 1), x.dtype)
    if p > 1:
        norm = op.Add(y, op.CastLike(op.Equal(y, 0.0), y))
        dy = op.Div(dy, norm if p == 2 else op.Pow(norm, power))
    seen = _uncover(op, _enlarge(op, dy), x) if _tiles(op) else _collect(op, dy, x)
    if p == 2:
        return op.Mul(seen, x)
    slope = op.Sign(x) if p == 1 else op.Mul(op.Sign(x), op.Pow(op.Abs(x), power))
    return op.Mul(seen, slope)


def _enlarge(op: Call, value: Value) -> Value:
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


def _covered(op: Call, x: Value, y: Value) -> Value:
    """x without the trailing elements that no window sees."""
    sizes, strides = op.dims(x)[2:], op.window.strides
    axes = list(range(2, len(sizes) + 2))
    if is_static(sizes):
        ends = [int(size) // s * s for size, s in zip(sizes, strides, strict=True)]
        return x if tuple(ends) == sizes else op.Slice(x, [0] * len(axes), ends, axes)
    dims = [*op.dims(x)[:2], *(times(size, s) for size, s in zip(op.dims(y)[2:], strides, strict=True))]
    return op.Slice(x, [0] * len(axes), op.Mul(op.Shape(y, start=2), strides), axes, dims=dims)


def _uncover(op: Call, dx: Value, x: Value) -> Value:
    """dx with zeros for those elements."""
    sizes, have = op.dims(x)[2:], op.dims(dx)[2:]
    if not is_static(sizes):
        rest = op.Sub(op.Shape(x), op.Shape(dx))
        return op.Pad(dx, op.Concat([0] * len(op.dims(x)), rest, axis=0), dims=op.dims(x))
    missing = [int(size) - int(h) for size, h in zip(sizes, have, strict=True)]
    return op.Pad(dx, [0] * (4 + len(sizes)) + missing) if any(missing) else dx


def _full_window(op: Call) -> Window:
    """The window with the end pads that cover exactly what the pooled size covers (ceil_mode included).

    A negative end pad would mean trailing elements that no window sees: they stay, and get no gradient.
    """
    window, sizes, counts = op.window, op.dims("x")[2:], op.dims("dy")[2:]
    more = [s - 1 if op.attr("ceil_mode") else 0 for s in window.strides]
    ends = [end + m for end, m in zip(window.ends, more, strict=True)]
    for i, (size, count) in enumerate(zip(sizes, counts, strict=True)):
        if isinstance(size, int) and isinstance(count, int):
            covered = (count - 1) * window.strides[i] + window.extents[i]
            ends[i] = max(covered - size - window.begins[i], 0)
    return replace(window, pads=(*window.begins, *ends))


def _as_images(op: Call, value: Value) -> Value:
    """[N, C, …] → [N·C, 1, …]: channels are pooled one by one."""
    batch, channels, *sizes = op.dims(value)
    images = batch * int(channels) if isinstance(batch, int) else f"{batch}*{channels}"
    shape = [-1, 1, *sizes] if is_static(sizes) else op.Concat([-1, 1], op.Shape(value, start=2), axis=0)
    return op.Reshape(value, shape, dims=(images, 1, *sizes))


def _collect(op: Call, share: Value, x: Value) -> Value:
    """Σ of the shares of all windows that see an element of x."""
    assert x.dtype is not None
    ones = op.builder.constant(np.ones((1, 1, *op.window.kernel_shape)), x.dtype)
    return _scatter(op, _as_images(op, share), ones, x)


def _scatter(op: Call, columns: Value, filters: Value, x: Value) -> Value:
    """The adjoint of a Conv over the padded images of x: ConvTranspose, channels back, its pads cut off."""
    window = op.window
    dx = op.ConvTranspose(
        columns,
        filters,
        kernel_shape=window.kernel_shape,
        strides=window.strides,
        dilations=window.dilations,
    )
    batch, channels, *sizes = *op.dims(x)[:2], *op.dims(dx)[2:]
    shape = [-1, channels, *sizes]
    if not is_static(shape):
        shape = op.Concat(op.Shape(x, end=2), op.Shape(dx, start=2), axis=0)
    return unpad(op, op.Reshape(dx, shape, dims=(batch, channels, *sizes)), x)
