"""Which place of an image each window of a convolution sees: by these indices `Gather` makes columns."""

from __future__ import annotations

from math import prod

import numpy as np
import numpy.typing as npt

from cnnc.ir.windows import Window
from cnnc.layout.form import Site

Index = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]
LARGEST = 2**29
"""Bytes of a column matrix, above which forms that make one are not offered."""


def has_columns(op: Site) -> bool:
    """A convolution of images without groups, or a gradient of one, whose columns are not too large."""
    window = op.window
    if window.rank != 2 or op.attr("group", 1) != 1 or any(pad < 0 for pad in window.pads):
        return False
    n, _, p, q = op.out if op.node.op_type == "Conv" else op.sizes(op.named("dy"))
    channels = op.dims(op.named("w"))[1]
    return 4 * channels * prod(window.kernel_shape) * p * q * n <= LARGEST


def has_strided_columns(op: Site) -> bool:
    """The same with a stride above 1."""
    return has_columns(op) and any(s > 1 for s in op.window.strides)


def places_seen(window: Window, width: int, p: int, q: int) -> Index:
    """For each tap and output place, the place it sees in an image with padding, [k, P, Q]."""
    (kh, kw), (sh, sw), (dh, dw) = window.kernel_shape, window.strides, window.dilations
    rows = np.arange(kh)[:, None] * dh + np.arange(p) * sh
    columns = np.arange(kw)[:, None] * dw + np.arange(q) * sw
    return (rows[:, None, :, None] * width + columns[None, :, None, :]).reshape(kh * kw, p, q)


def seen_at(window: Window, h: int, w: int, p: int, q: int) -> tuple[Index, Mask]:
    """For each tap and output place, the place of the map that it sees, and whether that is one: [k, P·Q]."""
    padded_width = w + window.begins[1] + window.ends[1]
    places = places_seen(window, padded_width, p, q).reshape(prod(window.kernel_shape), p * q)
    row, column = places // padded_width - window.begins[0], places % padded_width - window.begins[1]
    return row * w + column, (row >= 0) & (row < h) & (column >= 0) & (column < w)


def seen_by(window: Window, h: int, w: int, p: int, q: int) -> Index:
    """For each place of an image, the pairs (tap, output place) that see it, as tap · (P·Q + 1) + place.

    Filled up with (0, P·Q), a place that is zero: [H·W, most pairs of one place, one at least].
    """
    places, inside = seen_at(window, h, w, p, q)
    seen: list[list[int]] = [[] for _ in range(h * w)]
    for tap, place in zip(*np.nonzero(inside), strict=True):
        seen[places[tap, place]].append(int(tap) * (p * q + 1) + int(place))
    most = max(1, *map(len, seen))
    return np.array([pairs + [p * q] * (most - len(pairs)) for pairs in seen], np.int64).reshape(h * w, most)
