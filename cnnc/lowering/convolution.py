"""Bodies of the convolution gradients.

Notation: x [N, C, H, W], w [O, C/G, kh, kw], dy [N, O, P, Q] with G groups; 1-D and 3-D are alike. A column
matrix (im2col) holds for every output element the input elements its window sees.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from cnnc.ir import Dim, is_static
from cnnc.lowering.body import Call, Value, body
from cnnc.lowering.padding import times, unpad


@body("ConvGradInput", legal=lambda call: call.window.flips)
def flipped(op: Call, dy: Value, w: Value, x: Value) -> Value:
    """A convolution of dy with the filter flipped in space and its channels swapped: forward speed."""
    return _convolve_back(op, dy, w, op.window.flipped.pads, op.dims(x))


@body("ConvGradInput", legal=lambda call: call.attr("group") == 1)
def transposed(op: Call, dy: Value, w: Value, x: Value) -> Value:
    """ConvTranspose of dy over the padded input, its pads then cut off."""
    window = op.window
    dx = op.ConvTranspose(
        dy, w, kernel_shape=window.kernel_shape, strides=window.strides, dilations=window.dilations
    )
    return unpad(op, dx, x)


@body("ConvGradInput")
def stuffed(op: Call, dy: Value, w: Value, x: Value) -> Value:
    """Groups and strides: zeros between the elements of dy, then the flipped convolution.

    A grouped ConvTranspose would say the same, but onnx's ReferenceEvaluator computes it wrongly.
    """
    window = op.window
    batch, channels, *sizes = op.dims(dy)
    behind = [3 + 2 * i for i in range(window.rank)]  # an axis of its own for the zeros behind each element
    grow = [0] * (4 + 4 * window.rank)
    for axis, stride in zip(behind, window.strides, strict=True):
        grow[len(grow) // 2 + axis] = stride - 1
    apart = op.Pad(op.Unsqueeze(dy, behind), grow)
    spread = [times(size, stride) for size, stride in zip(sizes, window.strides, strict=True)]
    shape = [0, channels, *spread] if is_static(spread) else op.Mul(op.Shape(dy), [1, 1, *window.strides])
    dy = op.Reshape(apart, shape, dims=(batch, channels, *spread))
    pads = [e - 1 for e in window.extents * 2]
    return unpad(op, _convolve_back(op, dy, w, pads), x)


@body("ConvGradWeight", legal=lambda call: call.window.is_pointwise)
def pointwise(op: Call, dy: Value, x: Value, w: Value) -> Value:
    """1×1: the input is its own column matrix, dw = Σₙ dy·xᵀ."""
    return _product(op, dy, x, w)


@body("ConvGradWeight")
def one_hot(op: Call, dy: Value, x: Value, w: Value) -> Value:
    """Columns by a depthwise Conv with one-hot filters, then dw = Σₙ dy·columnsᵀ in the weight's layout."""
    return _product(op, dy, _columns(op, x), w)


@body("ConvGradWeight", legal=lambda call: call.attr("group") == 1 and is_static(call.dims("x")[2:]))
def textbook(op: Call, dy: Value, x: Value, w: Value) -> Value:
    """A convolution of x with dy, batch and channels swapped, stride and dilation swapped, cut to size."""
    window = op.window
    perm = [1, 0, *range(2, 2 + window.rank)]
    full = op.Conv(
        op.Transpose(x, perm=perm),
        op.Transpose(dy, perm=perm),
        strides=window.dilations,
        dilations=window.strides,
        pads=window.pads,
    )
    axes = list(range(2, 2 + window.rank))
    cut = op.Slice(full, [0] * window.rank, window.kernel_shape, axes)
    return op.Transpose(cut, perm=perm, dims=op.dims(w))


@body("ConvGradBias")
def channel_sum(op: Call, dy: Value, b: Value) -> Value:
    """Σ over space, then over the batch: one after the other is faster than both at once."""
    dims = op.dims(dy)
    if not is_static(dims[2:]):
        return op.ReduceSum(dy, [i for i in range(len(dims)) if i != 1], keepdims=0)
    flat = op.reshape(dy, (dims[0], dims[1], math.prod(int(d) for d in dims[2:])))
    return op.ReduceSum(op.ReduceSum(flat, [2], keepdims=0), [0], keepdims=0)


def _convolve_back(
    op: Call, dy: Value, w: Value, pads: Sequence[int], dims: Sequence[Dim] | None = None
) -> Value:
    """Conv of dy, stride 1, with the filter flipped in space and its channels swapped within each group."""
    window = op.window
    if any(k > 1 for k in window.kernel_shape):
        minus, axes = [-1] * window.rank, list(range(2, 2 + window.rank))
        w = op.Slice(w, minus, [np.iinfo(np.int64).min] * window.rank, axes, minus, dims=op.dims(w))
    return op.Conv(
        dy,
        _swap_channels(op, w, op.attr("group")),
        kernel_shape=window.kernel_shape,
        dilations=window.dilations,
        pads=pads,
        group=op.attr("group"),
        dims=dims,
    )


def _swap_channels(op: Call, w: Value, groups: int) -> Value:
    """[O, C/G, …] → [C, O/G, …], within each group."""
    out_channels, in_channels, *kernel = (int(d) for d in op.dims(w))
    axes = list(range(2, 2 + len(kernel)))
    if groups == 1:
        return op.Transpose(w, perm=[1, 0, *axes])
    if out_channels == groups and in_channels == 1:
        return w
    split = op.reshape(w, (groups, out_channels // groups, in_channels, *kernel))
    swapped = op.Transpose(split, perm=[0, 2, 1, *(a + 1 for a in axes)])
    return op.reshape(swapped, (groups * in_channels, out_channels // groups, *kernel))


def _columns(op: Call, x: Value) -> Value:
    """[N, C, …] → [N, C·k, …]: channel c·k + j holds what the j-th element of each window sees."""
    window = op.window
    channels = int(op.dims(x)[1])
    taps = math.prod(window.kernel_shape)
    one_hot = np.tile(
        np.eye(taps).reshape(taps, 1, *window.kernel_shape), (channels, *[1] * (window.rank + 1))
    )
    assert x.dtype is not None
    return op.Conv(
        x,
        op.builder.constant(one_hot, x.dtype),
        group=channels,
        **window.attributes(),
        dims=[op.dims(x)[0], channels * taps, *op.dims("dy")[2:]],
    )


def _product(op: Call, dy: Value, columns: Value, w: Value) -> Value:
    """Σₙ dy·columnsᵀ: [N, O, S] by [N, C·k, S] to the weight's shape."""
    batch, out_channels, *space = op.dims(dy)
    groups, rows = op.attr("group"), int(op.dims(columns)[1])
    lead = (batch,) if groups == 1 else (batch, groups)
    area = math.prod(int(d) for d in space) if is_static(space) else -1
    flat_dy = _flatten(op, dy, (*lead, int(out_channels) // groups, area))
    flat_columns = _flatten(op, columns, (*lead, rows // groups, area))
    perm = [*range(len(lead)), len(lead) + 1, len(lead)]
    each = op.MatMul(flat_dy, op.Transpose(flat_columns, perm=perm))
    return op.reshape(op.ReduceSum(each, [0], keepdims=0), op.dims(w))


def _flatten(op: Call, value: Value, dims: tuple[int | str, ...]) -> Value:
    """Reshape to (batch, …, area); an area of -1 is one that is known only at run time."""
    if dims[-1] != -1:
        return op.reshape(value, dims)
    target = [0, *dims[1:]]
    return op.Reshape(value, target, dims=(*dims[:-1], "area"))
