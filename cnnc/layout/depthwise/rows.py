"""In rows, as many at once as a stride takes: a group of s rows meets output rows at a few offsets."""

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


def _in_rows(op: Site) -> bool:
    if not is_depthwise(op) or not (offsets := len(_offsets(op))):
        return False
    _, c, _, w, _, q = maps_of(op)
    return max(c, prod(op.window.kernel_shape)) * op.window.strides[0] * w * offsets * q * 4 <= LARGEST


@form("Conv", CNHW, legal=_in_rows)
def rows(op: Site) -> Output:
    """Groups of rows times the bands of all offsets; each offset's rows moved to their place, and added."""
    n, c, _, _, p, q = maps_of(op)
    groups, offsets = _groups(op), _offsets(op)
    each = op.MatMul(_grouped(op, 0), _bands(op, None))
    each = op.reshape(each, (c * n, groups, len(offsets) * q))
    parts = op.split(each, [q] * len(offsets), axis=2)
    moved = [_moved(op, part, groups, p, offset, q) for part, offset in zip(parts, offsets, strict=True)]
    y = moved[0] if len(moved) == 1 else op.Sum(*moved)
    return with_bias(op, op.reshape(y, (c, n, p, q)))


@form("ConvGradInput", CNHW, legal=_in_rows)
def rows_back(op: Site) -> Output:
    """The rows of dy at all offsets side by side, times the bands transposed."""
    n, c, h, w, _, _ = maps_of(op)
    together, outer = _offset_gradient(op)
    band = op.Transpose(_bands(op, outer), perm=[0, 2, 1])
    dx = op.MatMul(together, band)
    rows = _groups(op) * op.window.strides[0]
    if rows > h:
        dx = op.Pad(op.reshape(dx, (c * n, rows * w)), [0, 0, 0, (h - rows) * w])
    return op.reshape(dx, (c, n, h, w))


@form("ConvGradWeight", CNHW, legal=_in_rows)
def rows_weight(op: Site) -> Output:
    """The gradient of the bands of each offset, and from them that of the filter."""
    n, c, _, w, p, q = maps_of(op)
    index, groups, width = op.named("dy"), _groups(op), op.window.strides[0] * w
    dy, outer = op.core(index)
    x = op.Transpose(_grouped(op, op.named("x")), perm=[0, 2, 1])
    bands = [
        op.reshape(
            op.MatMul(x, op.reshape(_moved(op, dy, p, groups, -offset, q), (c, n * groups, q))),
            (c, width * q),
        )
        for offset in _offsets(op)
    ]
    banded = _banded(op).reshape(-1, width, len(bands), q)
    parts = [
        op.MatMul(band, op.constant(banded[:, :, i].reshape(-1, width * q).T)) for i, band in enumerate(bands)
    ]
    return filter_gradient(op, op.Sum(*parts) if len(parts) > 1 else parts[0], outer)


@form("ConvGradWeight", CNHW, legal=_in_rows)
def rows_together_weight(op: Site) -> Output:
    """The same as one product with the rows of dy at all offsets, which `rows_back` has, too."""
    _, c, _, w, _, q = maps_of(op)
    together, outer = _offset_gradient(op)
    x = op.Transpose(_grouped(op, op.named("x")), perm=[0, 2, 1])
    band = op.reshape(op.MatMul(x, together), (c, op.window.strides[0] * w * len(_offsets(op)) * q))
    return filter_gradient(op, op.MatMul(band, op.constant(_banded(op).T)), outer)


def _groups(op: Site) -> int:
    """Groups of as many rows as the stride takes, the last one filled up with zeros."""
    return -(-maps_of(op)[2] // op.window.strides[0])


def _offsets(op: Site) -> list[int]:
    """By how many groups those that a window sees lie behind the group of its own number.

    Those at which every window sees padding alone are left out.
    """
    _, _, _, _, p, _ = maps_of(op)
    window, groups = op.window, _groups(op)
    first = [tap * window.dilations[0] - window.begins[0] for tap in range(window.kernel_shape[0])]
    return sorted({offset for row in first if -p < (offset := row // window.strides[0]) < groups})


def _grouped(op: Site, index: int) -> Value:
    """A map as [C, N·groups, stride·W]."""
    n, c, h, w = op.sizes(index)
    groups, stride = _groups(op), op.window.strides[0]
    x = op.read(index)
    if groups * stride > h:
        x = op.Pad(op.reshape(x, (c * n, h * w)), [0, 0, 0, (groups * stride - h) * w])
    return op.reshape(x, (c, n * groups, stride * w))


def _moved(op: Site, rows: Value, have: int, want: int, offset: int, width: int) -> Value:
    """Row p of each map from row p + offset, zeros where there is none: [C·N, want·width]."""
    n, c, *_ = maps_of(op)
    flat = op.reshape(rows, (c * n, have * width))
    if not offset and have == want:
        return flat
    return op.Pad(flat, [0, -offset * width, 0, (want + offset - have) * width])


def _offset_gradient(op: Site) -> tuple[Value, Value | None]:
    """[C, N·groups, offsets·Q]: beside each other the rows of dy that see a group; and the scale dy lacks."""
    n, c, _, _, p, q = maps_of(op)
    index = op.named("dy")
    dy, outer = op.core(index)
    groups, offsets = _groups(op), _offsets(op)

    def make() -> Value:
        moved = [op.reshape(_moved(op, dy, p, groups, -offset, q), (c, n * groups, q)) for offset in offsets]
        return moved[0] if len(moved) == 1 else op.Concat(*moved, axis=2)

    return op.share("offset rows", dy, op.window, groups, make=make), outer


def _bands(op: Site, scale: Value | None) -> Value:
    """[C, stride·W, offsets·Q], made once."""
    _, c, _, w, _, q = maps_of(op)
    dims = (c, op.window.strides[0] * w, len(_offsets(op)) * q)
    return op.share(
        "bands",
        op.value(op.named("w")),
        scale,
        op.window,
        dims,
        make=lambda: op.reshape(op.MatMul(filters(op, scale), op.constant(_banded(op))), dims),
    )


def _banded(op: Site) -> Matrix:
    """[kh·kw, stride·W·offsets·Q]: 1 where the tap joins a place in a group and one in an offset's row."""
    _, _, _, w, _, q = maps_of(op)
    window, offsets = op.window, _offsets(op)
    down = np.zeros((window.kernel_shape[0], window.strides[0], len(offsets)))
    for tap in range(window.kernel_shape[0]):
        offset, row = divmod(tap * window.dilations[0] - window.begins[0], window.strides[0])
        if offset in offsets:
            down[tap, row, offsets.index(offset)] = 1
    along = taps_along(op, 1, w, q)
    return np.einsum("iro,jwq->ijrwoq", down, along).reshape(prod(window.kernel_shape), -1)
