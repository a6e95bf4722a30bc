"""Max pools whose windows overlap or reach beyond the map, where space is outermost: [H, W, N, C].

`Gather` copies what each window sees, runs of N·C numbers; the maximum is one over an axis in the middle.
"""

from __future__ import annotations

from dataclasses import replace
from math import prod

import numpy as np

from cnnc.ir.windows import Window
from cnnc.layout.form import Site, Value
from cnnc.layout.ops import STEEP
from cnnc.layout.order import HWNC
from cnnc.layout.places import LARGEST, Index, Mask, seen_at, seen_by


def gathers(op: Site) -> bool:
    """Whether a pool, or a gradient of one, is computed so: each of its windows sees a part of the map."""
    window = op.window
    if op.layout != HWNC or window.rank != 2 or min(window.pads) < 0 or len(op.node.outputs) > 1:
        return False
    n, c, p, q = _pooled(op)
    copies = max(prod(window.kernel_shape) * p * q, prod(op.sizes(_map(op))[2:]) * _most_seen(window))
    return 4 * copies * n * c <= LARGEST and bool(_seen(op)[1].any(axis=1).all())


def pooled(op: Site) -> Value:
    """The maximum of each window; a place outside the map stands for one that is seen inside it."""
    n, c, h, w = op.sizes()
    _, _, p, q = op.out
    places, inside = _seen(op)
    first = np.take_along_axis(places, inside.argmax(axis=1)[:, None], axis=1)
    seen = op.Gather(op.reshape(op.read(0), (h * w, n * c)), np.where(inside, places, first), axis=0)
    return op.reshape(op.ReduceMax(seen, [1], keepdims=0), (p, q, n, c))


def pooled_gradient(op: Site) -> Value:
    """dy shared evenly by the maxima of its window; each place gathers and sums its shares.

    One place more than the map has is lower than any, and one window more sees that alone: its share is 0.
    """
    (n, c, h, w), (_, _, p, q), window = op.sizes(1), _pooled(op), _covering(op)
    taps, dtype = prod(window.kernel_shape), op.node.outputs[0].dtype
    assert dtype is not None
    lowest = op.builder.constant(
        max(map(float, (np.finfo(dtype.numpy()).min, np.finfo(np.float32).min))), dtype
    )
    x = op.Pad(op.reshape(op.read(1), (h * w, n * c)), [0, 0, 1, 0], lowest)
    y, dy = (op.Pad(op.reshape(op.read(i), (p * q, n * c)), [0, 0, 1, 0]) for i in (2, 0))
    places, inside = _seen(op)
    seen = op.Gather(x, np.concatenate([np.where(inside, places, h * w), np.full((1, taps), h * w)]), axis=0)
    together = (p * q + 1, 1, n * c)
    mask = op.HardSigmoid(op.Sub(seen, op.reshape(y, together)), alpha=STEEP, beta=1.0)
    share = op.Div(dy, op.Max(op.ReduceSum(mask, [1], keepdims=0), 1.0))
    shares = op.reshape(op.Mul(mask, op.reshape(share, together)), ((p * q + 1) * taps, n * c))
    tap, place = np.divmod(seen_by(window, h, w, p, q), p * q + 1)
    total = op.ReduceSum(op.Gather(shares, place * taps + tap, axis=0), [1], keepdims=0)
    return op.reshape(total, (h, w, n, c))


def _map(op: Site) -> int:
    """The number of the operand that is pooled."""
    return 0 if op.node.op_type == "MaxPool" else 1


def _pooled(op: Site) -> tuple[int, int, int, int]:
    return op.out if op.node.op_type == "MaxPool" else op.sizes(0)


def _most_seen(window: Window) -> int:
    """By how many windows a place is seen at most."""
    pairs = zip(window.kernel_shape, window.strides, strict=True)
    return prod(-(-taps // stride) if window.dilations == (1, 1) else taps for taps, stride in pairs)


def _covering(op: Site) -> Window:
    """The window with the end pads that its last place needs, whatever `ceil_mode` says."""
    window, sizes, counts = op.window, op.sizes(_map(op))[2:], _pooled(op)[2:]
    ends = [
        max((count - 1) * stride + extent - size - begin, 0)
        for count, stride, extent, size, begin in zip(
            counts, window.strides, window.extents, sizes, window.begins, strict=True
        )
    ]
    return replace(window, pads=(*window.begins, *ends))


def _seen(op: Site) -> tuple[Index, Mask]:
    """Where each window's taps lie in the map, and whether they do: [P·Q, taps]."""
    _, _, h, w = op.sizes(_map(op))
    _, _, p, q = _pooled(op)
    places, inside = seen_at(_covering(op), h, w, p, q)
    return places.T, inside.T
