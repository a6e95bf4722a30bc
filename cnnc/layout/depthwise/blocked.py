"""In blocks of channels, the batch beside the channels: a convolution of ONNX Runtime's CPU build."""

from __future__ import annotations

from math import prod

import numpy as np
import onnx_ir as ir

from cnnc.ir.windows import Window
from cnnc.layout.depthwise.filters import filters, is_depthwise, maps_of
from cnnc.layout.form import Output, Site, Value, form
from cnnc.layout.order import CNHW
from cnnc.layout.products import with_bias


def _blocked(op: Site) -> bool:
    if not is_depthwise(op):
        return False
    n, c, *_ = maps_of(op)
    return n * c % 16 == 0 and op.node.outputs[0].dtype == ir.DataType.FLOAT


@form("Conv", CNHW, legal=_blocked, local=True)
def blocked(op: Site) -> Output:
    """One map of N·C channels, in blocks; a bias and a ReLU behind wait."""
    _, _, h, w, p, q = maps_of(op)
    y = _convolved(op, op.read(0), (h, w), filters(op), op.window, (p, q))
    return with_bias(op, y)


@form("ConvGradInput", CNHW, legal=lambda op: _blocked(op) and op.window.flips, local=True)
def blocked_back(op: Site) -> Output:
    """The same of dy with the filter flipped in space."""
    _, _, h, w, p, q = maps_of(op)
    dy, outer = op.core(op.named("dy"))
    taps = np.arange(prod(op.window.kernel_shape))[::-1]
    flipped = op.Gather(filters(op, outer), taps.copy(), axis=1)
    return _convolved(op, dy, (p, q), flipped, op.window.flipped, (h, w))


def _convolved(
    op: Site, x: Value, size: tuple[int, int], taps: Value, window: Window, out: tuple[int, int]
) -> Value:
    """[C, N, H, W] by filters [C, kh·kw]: [C, N, P, Q].

    `ReorderInput` brings maps and filters into blocks of the size that this machine has.
    """
    n, c, *_ = maps_of(op)
    k = window.kernel_shape
    maps = op.blocked("ReorderInput", op.reshape(x, (1, c * n, *size)), dims=(1, c * n, *size))
    repeated = op.Expand(op.reshape(taps, (c, 1, prod(k))), [c, n, prod(k)], dims=(c, n, prod(k)))
    weight = op.blocked("ReorderInput", op.reshape(repeated, (1, c * n, *k)), dims=(1, c * n, *k))
    y = op.blocked(
        "Conv",
        maps,
        op.reshape(weight, (c * n, 1, *k)),
        dims=(1, c * n, *out),
        group=c * n,
        **window.attributes(),
    )
    plain = op.blocked("ReorderOutput", y, dims=(1, c * n, *out), channels=c * n)
    return op.reshape(plain, (c, n, *out))
