"""In whole maps, where these are small: one product with a banded matrix for each channel."""

from __future__ import annotations

from math import prod

import numpy as np

from cnnc.layout.depthwise.filters import (
    LARGEST,
    Matrix,
    filter_gradient,
    filters,
    is_depthwise,
    maps_of,
    taps_along,
)
from cnnc.layout.form import Output, Site, Value, form
from cnnc.layout.order import CNHW
from cnnc.layout.products import with_bias


def _small(op: Site) -> bool:
    if not is_depthwise(op):
        return False
    _, c, h, w, p, q = maps_of(op)
    return max(c, prod(op.window.kernel_shape)) * h * w * p * q * 4 <= LARGEST


@form("Conv", CNHW, legal=_small)
def toeplitz(op: Site) -> Output:
    """y = x·T for each channel, x [N, H·W] and T [H·W, P·Q]."""
    n, c, h, w, p, q = maps_of(op)
    y = op.MatMul(op.reshape(op.read(0), (c, n, h * w)), _toeplitz(op, None))
    return with_bias(op, op.reshape(y, (c, n, p, q)))


@form("ConvGradInput", CNHW, legal=_small)
def toeplitz_back(op: Site) -> Output:
    """dx = dy·Tᵀ."""
    n, c, h, w, p, q = maps_of(op)
    dy, outer = op.core(op.named("dy"))
    band = op.Transpose(_toeplitz(op, outer), perm=[0, 2, 1])
    return op.reshape(op.MatMul(op.reshape(dy, (c, n, p * q)), band), (c, n, h, w))


@form("ConvGradWeight", CNHW, legal=_small)
def toeplitz_weight(op: Site) -> Output:
    """dT = xᵀ·dy, and dw = dT·Eᵀ where T = w·E."""
    n, c, h, w, p, q = maps_of(op)
    dy, outer = op.core(op.named("dy"))
    x = op.Transpose(op.reshape(op.read(op.named("x")), (c, n, h * w)), perm=[0, 2, 1])
    band = op.MatMul(x, op.reshape(dy, (c, n, p * q)))
    flat = op.reshape(band, (c, h * w * p * q))
    return filter_gradient(op, op.MatMul(flat, op.constant(_whole(op).T)), outer)


def _toeplitz(op: Site, scale: Value | None) -> Value:
    """[C, H·W, P·Q], made once."""
    _, c, h, w, p, q = maps_of(op)
    return op.share(
        "toeplitz",
        op.value(op.named("w")),
        scale,
        op.window,
        (h, w, p, q),
        make=lambda: op.reshape(op.MatMul(filters(op, scale), op.constant(_whole(op))), (c, h * w, p * q)),
    )


def _whole(op: Site) -> Matrix:
    """E [kh·kw, H·W·P·Q]: 1 where the tap joins the input place and the output place."""
    _, _, h, w, p, q = maps_of(op)
    down, along = (taps_along(op, axis, size, out) for axis, size, out in ((0, h, p), (1, w, q)))
    return np.einsum("ihp,jwq->ijhwpq", down, along).reshape(-1, h * w * p * q)
