"""In blocks of channels, the batch beside the channels: convolutions of ONNX Runtime's CPU build.

All three passes are depthwise convolutions of one map of C·N channels. The weight gradient has dy for its
filter, with strides and dilations in each other's place; the input gradient of a strided convolution has
zeros between the elements of dy.

[C, N/b, H, W, b] is such a map as it lies; from [C, N, H, W] it is reordered, once for all that read it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import prod

import numpy as np
import onnx_ir as ir

from cnnc.ir import sizes_of
from cnnc.ir.windows import Window
from cnnc.layout.depthwise.filters import filter_gradient, filters, is_depthwise, maps_of
from cnnc.layout.form import Output, Site, Value, form
from cnnc.layout.ops import block_size
from cnnc.layout.order import CBHWN, CNHW, Layout
from cnnc.layout.products import with_bias


def _blocked(op: Site) -> bool:
    if not is_depthwise(op):
        return False
    n, c, *_ = maps_of(op)
    return n * c % 16 == 0 and op.node.outputs[0].dtype == ir.DataType.FLOAT


def _back(op: Site) -> Window:
    """The window of the convolution of dy, zeros between its elements, that gives dx."""
    _, _, h, w, p, q = maps_of(op)
    window = op.window
    begins = [extent - 1 - begin for extent, begin in zip(window.extents, window.begins, strict=True)]
    ends = [
        size - count * stride + begin
        for size, count, stride, begin in zip((h, w), (p, q), window.strides, window.begins, strict=True)
    ]
    return replace(window, strides=(1, 1), pads=(*begins, *ends))


def _weight(op: Site) -> Window:
    """The window of the convolution of x with dy for a filter, whose output is as large as the filter."""
    _, _, h, w, p, q = maps_of(op)
    window = op.window
    ends = [
        extent + (count - 1) * stride - size - begin
        for extent, count, stride, size, begin in zip(
            window.extents, (p, q), window.strides, (h, w), window.begins, strict=True
        )
    ]
    return Window((p, q), window.dilations, (*window.begins, *ends), window.strides)


def _register(layout: Layout) -> None:
    """Register the forms of a layout, [C, N, H, W] or the blocked one itself."""
    lies = layout is CBHWN

    @form("Conv", layout, legal=_blocked, local=True)
    def blocked(op: Site) -> Output:
        """One map of N·C channels, in blocks; a bias and a ReLU behind wait."""
        _, _, h, w, p, q = maps_of(op)
        y = _convolved(op, _maps(op, op.read(0), (h, w)), _repeated(op, filters(op)), op.window, (p, q))
        return with_bias(op, _left(op, y))

    @form(
        "ConvGradInput",
        layout,
        legal=lambda op: _blocked(op) and min(_back(op).pads) >= 0 and (lies or op.window.flips),
        local=True,
    )
    def blocked_back(op: Site) -> Output:
        """The same of dy with the filter flipped in space, zeros between dy's elements where it strides."""
        _, _, h, w, p, q = maps_of(op)
        dy, outer = op.core(op.named("dy"))
        taps = np.arange(prod(op.window.kernel_shape))[::-1]
        flipped = op.Gather(filters(op, outer), taps.copy(), axis=1)
        apart = _apart(op, _maps(op, dy, (p, q)), op.window.strides)
        return _left(op, _convolved(op, apart, _repeated(op, flipped), _back(op), (h, w)))

    @form(
        "ConvGradWeight",
        layout,
        legal=lambda op: _blocked(op) and min(_weight(op).pads) >= 0,
        local=True,
    )
    def blocked_weight(op: Site) -> Output:
        """The same of x with dy for the filter, one for each example and channel; summed over examples."""
        n, c, h, w, p, q = maps_of(op)
        dy, outer = op.core(op.named("dy"))
        x, kernel = _maps(op, op.read(op.named("x")), (h, w)), op.window.kernel_shape
        filter_ = op.reshape(_maps(op, dy, (p, q)), (c * n, 1, p, q))
        each = _left(op, _convolved(op, x, filter_, _weight(op), kernel))
        examples, taps = n, prod(kernel)
        if lies:
            *_, block = sizes_of(each)
            examples = n // block
            each = op.ReduceSum(op.reshape(each, (c, examples, taps, block)), [3], keepdims=0)
        total = op.ReduceSum(op.reshape(each, (c, examples, taps)), [1], keepdims=0)
        return filter_gradient(op, total, outer)


for _layout in (CNHW, CBHWN):
    _register(_layout)


def _maps(op: Site, x: Value, size: tuple[int, int]) -> Value:
    """A map of the site's layout as [1, C·N, H, W] in blocks of the size that this machine has."""
    n, c, *_ = maps_of(op)
    dims = (1, c * n, *size)
    if op.layout == CBHWN:
        return op.reshape(x, dims)
    return op.share("blocks", x, make=lambda: op.blocked("ReorderInput", op.reshape(x, dims), dims=dims))


def _left(op: Site, y: Value) -> Value:
    """And back."""
    n, c, *_ = maps_of(op)
    _, channels, h, w = sizes_of(y)
    if op.layout != CBHWN:
        y = op.blocked("ReorderOutput", y, dims=sizes_of(y), channels=channels)
    return op.reshape(y, op.layout.dims((n, c, h, w)))


def _repeated(op: Site, taps: Value) -> Value:
    """Filters [C, kh·kw] for each example, as [C·N, 1, kh, kw] in blocks."""
    n, c, *_ = maps_of(op)
    k, count = op.window.kernel_shape, prod(op.window.kernel_shape)
    if op.layout == CBHWN:
        dims = CBHWN.dims((n, c, count, 1))
        weight = op.Expand(op.reshape(taps, (c, 1, count, 1, 1)), dims, dims=dims)
    else:
        repeated = op.Expand(op.reshape(taps, (c, 1, count)), [c, n, count], dims=(c, n, count))
        weight = op.blocked("ReorderInput", op.reshape(repeated, (1, c * n, *k)), dims=(1, c * n, *k))
    return op.reshape(weight, (c * n, 1, *k))


def _apart(op: Site, dy: Value, strides: Sequence[int]) -> Value:
    """A map in blocks with zeros behind each row and column, as many as a stride passes over."""
    _, channels, p, q = sizes_of(dy)
    down, along = strides
    block = block_size() if op.layout == CBHWN else 1
    dy = _filled(op, dy, channels * p * q // block, block, along)
    dy = _filled(op, dy, channels * p // block, q * along * block, down)
    return op.reshape(dy, (1, channels, p * down, q * along))


def _filled(op: Site, x: Value, runs: int, length: int, stride: int) -> Value:
    """Behind each run as many zeros as make it `stride` times as long."""
    if stride == 1:
        return x
    more = (runs, length * (stride - 1))
    zeros = op.share("zeros", more, make=lambda: op.ConstantOfShape(np.array(more, np.int64)))
    return op.Concat(op.reshape(x, (runs, length)), zeros, axis=1)


def _convolved(op: Site, x: Value, weight: Value, window: Window, out: tuple[int, ...]) -> Value:
    """A blocked convolution with a filter for each channel."""
    channels = sizes_of(x)[1]
    return op.blocked("Conv", x, weight, dims=(1, channels, *out), group=channels, **window.attributes())
