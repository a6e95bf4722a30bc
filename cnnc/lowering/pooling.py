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
from cnnc.lowering.padding import unpad
from cnnc.lowering.tiles import covered, enlarge, tile_sum, uncover


def _tiles(call: Call) -> bool:
    return call.window.tiles and not call.attr("ceil_mode")


@body("MaxPoolGrad", legal=_tiles)
def nearest(op: Call, dy: Value, x: Value, y: Value) -> Value:
    """Windows side by side: y and dy are spread by nearest Resize, the maxima found by Equal."""
    mask = op.CastLike(op.Equal(covered(op, x, y), enlarge(op, y)), x)
    share = op.Div(dy, tile_sum(op, mask, op.window.strides, op.dims(y)))
    return uncover(op, op.Mul(enlarge(op, share), mask), x)


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
    return uncover(op, enlarge(op, op.Div(dy, float(taps))), x)


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
    seen = uncover(op, enlarge(op, dy), x) if _tiles(op) else _collect(op, dy, x)
    if p == 2:
        return op.Mul(seen, x)
    slope = op.Sign(x) if p == 1 else op.Mul(op.Sign(x), op.Pow(op.Abs(x), power))
    return op.Mul(seen, slope)


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
