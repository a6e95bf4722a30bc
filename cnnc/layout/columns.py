"""Any convolution without groups as one product with a matrix of columns (im2col), which `Gather` makes.

A column holds what a window sees. With the batch innermost its elements are rows of N numbers, which `Gather`
with a constant index copies; `runs` does the same with runs of C numbers in [H, W, N, C]. The columns of the
forward pass serve the weight gradient, too.

In the tiled layout the windows under one element of a max pool lie along an axis of their own, so that the
pool is one reduction.
"""

from __future__ import annotations

from math import prod

import numpy as np

from cnnc.ir import sizes_of
from cnnc.ir.windows import Window, window_of
from cnnc.layout.form import Output, Site, Value, form
from cnnc.layout.order import CBHWN, CHWN, CNHW, HWNC, Layout, Sizes, Tiled, tiled
from cnnc.layout.places import has_columns, has_strided_columns, places_seen, seen_by
from cnnc.layout.products import contracted_columns, scaled_rows, splits, with_bias


def _unit(op: Site) -> bool:
    """A ConvGradInput that is itself a convolution of dy."""
    return has_columns(op) and op.window.flips


def _few_channels(op: Site) -> bool:
    return has_columns(op) and op.dims(op.named("w"))[1] < 8


# [C, H, W, N]


def _pool_behind(op: Site) -> Tiled | None:
    """The tiled layout for the max pool that reads a convolution, if that is all that does."""
    forward = [node for node in op.readers() if node.op_type != "MaxPoolGrad"]
    if len(forward) != 1 or forward[0].op_type != "MaxPool" or op.node.outputs[0].is_graph_output():
        return None
    pool = forward[0]
    window = window_of(pool)
    ceil = pool.attributes["ceil_mode"].as_int() if "ceil_mode" in pool.attributes else 0
    return tiled(window.kernel_shape) if window.tiles and not ceil and len(pool.outputs) == 1 else None


def _before_pool(op: Site) -> Layout:
    """CHWN/tiles"""
    return _pool_behind(op) or CHWN


def _pooled_gradient(op: Site) -> Layout:
    """CHWN/tiles"""
    dy = op.value(op.named("dy"))
    node = dy.producer() if dy is not None else None
    if node is not None and node.op_type == "MaxPoolGrad":
        pool = op.step.pools.get(node.inputs[2]) if op.step else None
        if pool is not None and isinstance(pool.layout, Tiled):
            return pool.layout
    return CHWN


@form("Conv", CHWN, legal=has_columns)
def columns(op: Site) -> Output:
    """y = W·columns, [O, C·k]·[C·k, P·Q·N]."""
    o, k = op.dims(1)[0], prod(op.dims(1)[1:])
    seen = _columns(op, 0, op.window, op.out, op.layout)
    y = op.MatMul(op.reshape(op.plain(1), (o, k)), op.reshape(seen, (k, prod(sizes_of(seen)) // k)))
    return with_bias(op, op.reshape(y, op.layout.dims(op.out)))


@form("Conv", _before_pool, legal=lambda op: has_columns(op) and _pool_behind(op) is not None)
def columns_before_pool(op: Site) -> Output:
    """The same with the places under one element of the pool behind along an axis of their own."""
    return columns(op)


@form("ConvGradWeight", _pooled_gradient, legal=has_columns, local=True)
def columns_weight(op: Site) -> Output:
    """dw = dy·columnsᵀ, with the columns of the forward pass."""
    dy_index, w = op.named("dy"), op.named("w")
    o, k = op.dims(w)[0], prod(op.dims(w)[1:])
    sizes = op.sizes(dy_index)
    dy, outer = op.core(dy_index)
    seen = _columns(op, op.named("x"), op.window, sizes, op.layout)
    weight = contracted_columns(op, dy, seen, prod(op.layout.dims(sizes)[1:]), o, k)
    return scaled_rows(op, op.reshape(weight, op.dims(w)), outer)


@form("Conv", CBHWN, legal=lambda op: _few_channels(op))
@form("Conv", CNHW, legal=lambda op: _few_channels(op))
def columns_by_map(op: Site) -> Output:
    """The columns of few channels, as of an image, with the places of each example together: [C·k, N·P·Q]."""
    o, k = op.dims(1)[0], prod(op.dims(1)[1:])
    seen = op.reshape(_columns(op, 0, op.window, op.out, op.layout), (k, prod(op.out) // o))
    return with_bias(op, op.reshape(op.MatMul(op.reshape(op.plain(1), (o, k)), seen), op.layout.dims(op.out)))


@form("ConvGradWeight", CBHWN, legal=lambda op: _few_channels(op), local=True)
@form("ConvGradWeight", CNHW, legal=lambda op: _few_channels(op), local=True)
def columns_by_map_weight(op: Site) -> Output:
    """dw = dy·columnsᵀ, with the columns of the forward pass."""
    return columns_weight(op)


@form("ConvGradInput", CHWN, legal=_unit)
def columns_flipped(op: Site) -> Output:
    """A convolution of dy with the filter flipped in space and its channels swapped."""
    dy_index, w = op.named("dy"), op.named("w")
    o, c, *kernel = op.dims(w)
    x_sizes = op.sizes(op.named("x"))
    dy, outer = op.core(dy_index)
    weight = op.reshape(scaled_rows(op, op.plain(w), outer), (o, c, prod(kernel)))
    taps = np.arange(prod(kernel))[::-1]
    flipped = op.Transpose(op.Gather(weight, taps.copy(), axis=2), perm=[1, 0, 2])
    seen = _gathered(op, dy, op.sizes(dy_index), op.window.flipped, x_sizes, CHWN)
    rows = o * prod(kernel)
    dx = op.MatMul(op.reshape(flipped, (c, rows)), op.reshape(seen, (rows, prod(sizes_of(seen)) // rows)))
    return op.reshape(dx, CHWN.dims(x_sizes))


@form("ConvGradInput", CHWN, legal=has_strided_columns)
def columns_back(op: Site) -> Output:
    """Wᵀ·dy is the gradient of the columns; each element of dx gathers and sums those it was copied to."""
    dy_index, w = op.named("dy"), op.named("w")
    o, k = op.dims(w)[0], prod(op.dims(w)[1:])
    (n, c, h, width), (_, _, p, q) = op.sizes(op.named("x")), op.sizes(dy_index)
    dy, outer = op.core(dy_index)
    weight = op.Transpose(op.reshape(scaled_rows(op, op.plain(w), outer), (o, k)), perm=[1, 0])
    padded = op.Pad(op.reshape(dy, (o, p * q, n)), [0, 0, 0, 0, 1, 0])
    each = op.reshape(op.MatMul(weight, op.reshape(padded, (o, (p * q + 1) * n))), (k * (p * q + 1), n))
    taps = prod(op.window.kernel_shape)
    index = seen_by(op.window, h, width, p, q)[None] + np.arange(c)[:, None, None] * taps * (p * q + 1)
    copies = op.Gather(each, index.reshape(c * h * width, -1), axis=0)
    return op.reshape(op.ReduceSum(copies, [1], keepdims=0), (c, h, width, n))


def _columns(op: Site, index: int, window: Window, out: Sizes, layout: Layout) -> Value:
    """The columns of operand `index`, [C·k, …the layout of the output without channels], made once."""
    return op.share(
        "columns",
        op.value(index),
        window,
        layout,
        make=lambda: (
            _gathered(op, op.read(index, CHWN), op.sizes(index), window, out, layout)
            if layout != CBHWN
            else _gathered_blocks(op, op.read(index, CBHWN), op.sizes(index), window, out)
        ),
    )


def _gathered(
    op: Site,
    x: Value,
    sizes: Sizes,
    window: Window,
    out: Sizes,
    layout: Layout,
    after: Value | None = None,
) -> Value:
    n, c, h, w = sizes
    if any(window.pads):
        (top, left), (bottom, right) = window.begins, window.ends
        x = op.Pad(op.after(after, x, (c, h, w, n)), [0, top, left, 0, 0, bottom, right, 0])
        h, w, after = h + top + bottom, w + left + right, None
    places = places_seen(window, w, out[2], out[3])
    if isinstance(layout, Tiled):
        (th, tw), (_, tile, rows, columns, _) = layout.tile, layout.dims(out)
        whole = places[:, : rows * th, : columns * tw].reshape(-1, rows, th, columns, tw)
        places = whole.transpose(0, 2, 4, 1, 3).reshape(-1, tile * rows, columns)
    index = (np.arange(c)[:, None, None] * h * w + places.reshape(1, len(places), -1)).reshape(
        c * len(places), -1
    )
    seen = op.Gather(op.after(after, x, (c * h * w, n)), index, axis=0)
    return op.Transpose(seen, perm=[0, 2, 1]) if layout == CNHW else seen


def _gathered_blocks(op: Site, x: Value, sizes: Sizes, window: Window, out: Sizes) -> Value:
    """The same of [C, N/b, H, W, b], whose rows are blocks of examples: [C·k, N/b, P·Q, b]."""
    c, blocks, h, w, block = CBHWN.dims(sizes)
    if any(window.pads):
        (top, left), (bottom, right) = window.begins, window.ends
        x = op.Pad(x, [0, 0, top, left, 0, 0, 0, bottom, right, 0])
        h, w = h + top + bottom, w + left + right
    places = places_seen(window, w, out[2], out[3]).reshape(prod(window.kernel_shape), 1, -1)
    first = (np.arange(c)[:, None] * blocks + np.arange(blocks)) * h * w
    index = (first[:, None, :, None] + places).reshape(c * len(places), blocks, -1)
    return op.Gather(op.reshape(x, (c * blocks * h * w, block)), index, axis=0)


# [H, W, N, C]


@form("Conv", HWNC, legal=_few_channels, first=lambda op: True)
def columns_of_image(op: Site) -> Output:
    """Few channels, as of an image: columns as in [C, H, W, N], and the product gives [P·Q·N, O]."""
    n, o, p, q = op.out
    k = prod(op.dims(1)[1:])
    seen = op.reshape(_columns(op, 0, op.window, op.out, CHWN), (k, p * q * n))
    weight = op.Transpose(op.reshape(op.plain(1), (o, k)), perm=[1, 0])
    return with_bias(op, op.reshape(op.MatMul(op.Transpose(seen, perm=[1, 0]), weight), (p, q, n, o)))


@form("ConvGradWeight", HWNC, legal=_few_channels, local=True, first=lambda op: True)
def columns_of_image_weight(op: Site) -> Output:
    """dwᵀ = columns·dy, the sum in parts."""
    return _image_weight(op, again=False)


@form("ConvGradWeight", HWNC, legal=_few_channels, local=True, leaner_than="HWNC.columns_of_image_weight")
def columns_of_image_again_weight(op: Site) -> Output:
    """The same with columns copied again, not kept from the forward pass."""
    return _image_weight(op, again=True)


def _image_weight(op: Site, *, again: bool) -> Output:
    dy_index, x, w = op.named("dy"), op.named("x"), op.named("w")
    n, o, p, q = op.sizes(dy_index)
    k, rows = prod(op.dims(w)[1:]), p * q * n
    dy, outer = op.core(dy_index)
    if again:
        seen = _gathered(op, op.read(x, CHWN), op.sizes(x), op.window, (n, o, p, q), CHWN, after=dy)
    else:
        seen = _columns(op, x, op.window, (n, o, p, q), CHWN)
    parts = splits(rows)
    each = op.FusedMatMul(
        op.reshape(seen, (k, parts, rows // parts)),
        op.reshape(dy, (parts, rows // parts, o)),
        dims=(parts, k, o),
        transBatchA=1,
    )
    total = op.Transpose(op.ReduceSum(each, [0], keepdims=0), perm=[1, 0])
    return scaled_rows(op, op.reshape(total, op.dims(w)), outer)
