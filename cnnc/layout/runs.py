"""Strided convolutions in [H, W, N, C]: columns of runs of C numbers, which `Gather` copies.

The columns of the forward pass serve the weight gradient, too.
"""

from __future__ import annotations

from math import prod

import numpy as np

from cnnc.ir import sizes_of
from cnnc.layout.form import Output, Site, Value, form
from cnnc.layout.order import HWNC, Sizes
from cnnc.layout.places import has_strided_columns, places_seen, seen_by
from cnnc.layout.products import contracted_rows, scaled_rows, with_bias


@form("Conv", HWNC, legal=has_strided_columns)
def runs(op: Site) -> Output:
    """Columns of runs of C numbers: y = columns·W, [P·Q·N, k·C]·[k·C, O]."""
    n, o, p, q = op.out
    c, taps = op.dims(1)[1], prod(op.window.kernel_shape)
    seen = op.reshape(_runs(op, 0, op.out), (p * q * n, taps * c))
    return with_bias(op, op.reshape(op.MatMul(seen, _taps_first(op, op.plain(1))), (p, q, n, o)))


@form("ConvGradWeight", HWNC, legal=has_strided_columns)
def runs_weight(op: Site) -> Output:
    """dw = dyᵀ·columns, with the columns of the forward pass; the sum in parts."""
    return _weight(op, again=False)


@form("ConvGradWeight", HWNC, legal=has_strided_columns, leaner_than="HWNC.runs_weight")
def runs_again_weight(op: Site) -> Output:
    """The same with columns copied again, not kept from the forward pass."""
    return _weight(op, again=True)


def _weight(op: Site, *, again: bool) -> Output:
    dy_index, x, w = op.named("dy"), op.named("x"), op.named("w")
    n, o, p, q = op.sizes(dy_index)
    _, c, *kernel = op.dims(w)
    dy, outer = op.core(dy_index)
    seen = _copied(op, x, (n, o, p, q), after=dy) if again else _runs(op, x, (n, o, p, q))
    flat = contracted_rows(op, dy, seen, p * q * n, o, prod(kernel) * c)
    weight = op.Transpose(op.reshape(flat, (o, prod(kernel), c)), perm=[0, 2, 1])
    return scaled_rows(op, op.reshape(weight, op.dims(w)), outer)


@form("ConvGradInput", HWNC, legal=has_strided_columns)
def runs_back(op: Site) -> Output:
    """dy·W for each tap; each element of dx gathers and sums those it was copied to."""
    dy_index, w = op.named("dy"), op.named("w")
    o, c, *kernel = op.dims(w)
    (n, _, h, width), (_, _, p, q) = op.sizes(op.named("x")), op.sizes(dy_index)
    dy, outer = op.core(dy_index)
    taps = prod(kernel)
    weight = op.Transpose(op.reshape(scaled_rows(op, op.plain(w), outer), (o, c, taps)), perm=[2, 0, 1])
    padded = op.Pad(op.reshape(dy, (p * q, n * o)), [0, 0, 1, 0])
    each = op.MatMul(op.reshape(padded, (1, (p * q + 1) * n, o)), weight)
    copies = op.Gather(
        op.reshape(each, (taps * (p * q + 1), n * c)), seen_by(op.window, h, width, p, q), axis=0
    )
    total = op.ReduceSum(copies, [1], keepdims=0) if sizes_of(copies)[1] > 1 else copies
    return op.reshape(total, (h, width, n, c))


def _taps_first(op: Site, weight: Value) -> Value:
    """[O, C, kh, kw] → [kh·kw·C, O]."""
    o, c, *kernel = sizes_of(weight)
    turned = op.Transpose(op.reshape(weight, (o, c, prod(kernel))), perm=[2, 1, 0])
    return op.reshape(turned, (prod(kernel) * c, o))


def _runs(op: Site, index: int, out: Sizes) -> Value:
    """The columns of operand `index`, made once."""
    return op.share("runs", op.value(index), op.window, make=lambda: _copied(op, index, out))


def _copied(op: Site, index: int, out: Sizes, after: Value | None = None) -> Value:
    """The columns of operand `index` as [P·Q, N, k, C]; one tap needs no run for each example."""
    (n, c, h, w), window, image = op.sizes(index), op.window, op.read(index)
    if any(window.pads):
        (top, left), (bottom, right) = window.begins, window.ends
        image = op.Pad(op.after(after, image, (h, w, n, c)), [top, left, 0, 0, bottom, right, 0, 0])
        h, w, after = h + top + bottom, w + left + right, None
    places = places_seen(window, w, out[2], out[3]).reshape(prod(window.kernel_shape), -1)
    if len(places) == 1:
        return op.Gather(op.after(after, image, (h * w, n * c)), places[0], axis=0)
    runs = places.T[:, None, :] * n + np.arange(n)[None, :, None]
    return op.Gather(op.after(after, image, (h * w * n, c)), runs, axis=0)
