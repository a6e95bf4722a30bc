"""Convolutions by ONNX Runtime's blocked kernels, on maps in [H, W, N, C].

These kernels take channels in blocks that fill a register, and reach the processor's peak without columns in
memory. They are made for [C/b, H, W, b]; but a block of channels of [H, W, N, C] is just that, a map of
height H and width W·N whose neighbours lie N columns apart: a convolution dilated N times along its rows. So
one block of channels is taken as it lies, and more are brought apart by one copy.

The weight gradient is a convolution, too, of as many places as the filter has: of x by dy, whose height and
width are the filter's, and whose channels are examples. It wants x with the examples innermost, which
`ReorderInput` does a block at a time.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from cnnc.ir.windows import Window
from cnnc.layout.form import Output, Site, Value, form
from cnnc.layout.ops import block_size
from cnnc.layout.order import HWNC, Sizes
from cnnc.layout.products import scaled_rows, with_bias


def _has_kernels(op: Site) -> bool:
    """Whether there are such kernels for a convolution of images without groups, or a gradient of one."""
    return (
        block_size() > 0
        and op.window.rank == 2
        and not op.window.is_pointwise  # that is a product, with nothing to bring apart
        and op.attr("group", 1) == 1
        and min(op.window.pads) >= 0
        and op.node.outputs[0].dtype == ir.DataType.FLOAT
    )


def _fill_blocks(*sizes: int) -> bool:
    return not any(size % block_size() for size in sizes)


def _whole_blocks(op: Site) -> bool:
    """Whether channels on both sides fill blocks; columns next to one another."""
    return _has_kernels(op) and op.window.strides[1] == 1 and _fill_blocks(*op.dims(op.named("w"))[:2])


@form("Conv", HWNC, legal=_whole_blocks, local=True, first=lambda op: op.one_block)
def blocked(op: Site) -> Output:
    """A convolution dilated by the batch along rows of W·N; a bias and a ReLU behind wait."""
    return with_bias(op, _convolved(op, op.read(0), op.sizes(0), op.plain(1), op.window, op.out))


def _turns_back(op: Site) -> bool:
    """Whether dx is itself a convolution of dy."""
    return _whole_blocks(op) and op.window.flips


@form("ConvGradInput", HWNC, legal=_turns_back, local=True, first=lambda op: op.one_block)
def blocked_back(op: Site) -> Output:
    """The same of dy, with the filter turned by half a turn and its channels swapped."""
    dy_index, w, window = op.named("dy"), op.named("w"), op.window
    o, c, *kernel = op.dims(w)
    dy, outer = op.core(dy_index)
    taps = np.arange(int(np.prod(kernel)))[::-1]
    weight = op.reshape(scaled_rows(op, op.plain(w), outer), (o, c, len(taps)))
    turned = op.Transpose(op.Gather(weight, taps.copy(), axis=2), perm=[1, 0, 2])
    filters, sizes = op.reshape(turned, (c, o, *kernel)), op.sizes(op.named("x"))
    return _convolved(op, dy, op.sizes(dy_index), filters, window.flipped, sizes)


def _convolved(op: Site, x: Value, sizes: Sizes, weight: Value, window: Window, out: Sizes) -> Value:
    """[H, W, N, C] by filters [O, C, kh, kw]: [P, Q, N, O]."""
    (n, c, h, w), (_, o, p, q), block = sizes, out, block_size()
    kh, kw = window.kernel_shape
    (top, left), (bottom, right) = window.begins, window.ends
    apart = op.reshape(weight, (o // block, block, c // block, block, kh, kw))
    filters = op.reshape(op.Transpose(apart, perm=[0, 2, 4, 5, 3, 1]), (o, c, kh, kw))
    y = op.blocked(
        "Conv",
        op.reshape(_apart(op, x, h * w * n, c), (1, c, h, w * n)),
        filters,
        dims=(1, o, p, q * n),
        group=1,
        kernel_shape=[kh, kw],
        strides=[window.strides[0], 1],
        pads=[top, left * n, bottom, right * n],
        dilations=[window.dilations[0], window.dilations[1] * n],
    )
    return op.reshape(_together(op, y, p * q * n, o), (p, q, n, o))


def _apart(op: Site, x: Value, rows: int, channels: int) -> Value:
    """[rows, C] to [C/b, rows, b]."""
    blocks, block = channels // block_size(), block_size()
    if blocks == 1:
        return x
    return op.Transpose(op.reshape(x, (rows, blocks, block)), perm=[1, 0, 2])


def _together(op: Site, x: Value, rows: int, channels: int) -> Value:
    """[C/b, rows, b] to [rows, C]."""
    blocks, block = channels // block_size(), block_size()
    if blocks == 1:
        return x
    return op.Transpose(op.reshape(x, (blocks, rows, block)), perm=[1, 0, 2])


def _correlates(op: Site) -> bool:
    """Whether examples and output channels fill blocks; taps next to one another."""
    return _has_kernels(op) and op.window.dilations[1] == 1 and _fill_blocks(*op.sizes(op.named("dy"))[:2])


@form("ConvGradWeight", HWNC, legal=_correlates, local=True, first=lambda op: op.one_block)
def blocked_weight(op: Site) -> Output:
    """x by dy as a filter, a block of examples at a time: at height i and width j·C + c is dw[:, c, i, j]."""
    x_index, dy_index, window, block = op.named("x"), op.named("dy"), op.window, block_size()
    (n, c, h, w), (_, o, p, q) = op.sizes(x_index), op.sizes(dy_index)
    (kh, kw), (sh, sw), groups = window.kernel_shape, window.strides, n // block
    dy, outer = op.core(dy_index)
    filters = _examples_apart(op, dy, p * q, groups, o)
    # As far as the windows reach, and no further: the kernel's height and width are those of dy.
    left, width = window.begins[1], (q - 1) * sw + kw
    top, height = window.begins[0], (p - 1) * sh + window.extents[0]
    image = op.reshape(op.read(x_index), (h, w, n * c))
    if (w, left) != (width, 0) or h + top > height:
        over = min(height - h - top, 0)
        image = op.Pad(image, [0, left, 0, over, width - w - left, 0])
        h += over
    inner = op.blocked(
        "ReorderInput",
        op.reshape(image, (h * width * groups, block, c, 1)),
        dims=(h * width * groups, block, c, 1),
    )
    if groups > 1:
        inner = op.Transpose(op.reshape(inner, (h * width, groups, c * block)), perm=[1, 0, 2])
    each = op.blocked(
        "Conv",
        op.reshape(inner, (1, n, h, width * c)),
        op.reshape(filters, (groups * o, block, p, q)),
        dims=(1, groups * o, kh, kw * c),
        group=groups,
        kernel_shape=[p, q],
        strides=[window.dilations[0], 1],
        pads=[top, 0, height - h - top, 0],
        dilations=[sh, sw * c],
    )
    total = op.reshape(each, (groups, o * c * kh * kw))
    if groups > 1:
        total = op.ReduceSum(total, [0], keepdims=0)
    weight = op.Transpose(op.reshape(total, (o // block, kh, kw, c, block)), perm=[0, 4, 3, 1, 2])
    return scaled_rows(op, op.reshape(weight, (o, c, kh, kw)), outer)


def _examples_apart(op: Site, dy: Value, places: int, groups: int, channels: int) -> Value:
    """[places, N, O] to [N/b, O/b, places, b, b]; few axes are a faster copy."""
    block = block_size()
    if channels == block:
        rows = op.reshape(dy, (places, groups, block * block))
        return rows if groups == 1 else op.Transpose(rows, perm=[1, 0, 2])
    apart = op.reshape(dy, (places, groups, block, channels // block, block))
    return op.Transpose(apart, perm=[1, 3, 0, 2, 4])
