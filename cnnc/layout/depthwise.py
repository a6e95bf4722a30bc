"""Depthwise convolutions, a filter [kh, kw] for each channel, in [C, N, H, W].

Each channel is a matrix of its own, so a filter is a banded matrix from the right, one product for each
channel: of whole maps where these are small (`toeplitz`), else of rows, or of as many rows as a stride takes
(`rows`). The band is the filter times a constant 0/1 matrix, and its gradient goes back through the same.

On ONNX Runtime's CPU build a blocked convolution (`blocked`) is faster for large maps of stride 1.
"""

from __future__ import annotations

from dataclasses import replace
from math import prod

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from cnnc.ir.windows import Window
from cnnc.layout.form import Output, Site, Value, form
from cnnc.layout.order import CNHW
from cnnc.layout.products import with_bias

Matrix = npt.NDArray[np.float64]
LARGEST = 2**26
"""Bytes of all bands, above which these forms are not offered."""


def _depthwise(op: Site) -> bool:
    """One filter for each channel, one output channel for each filter."""
    dims = op.dims(_weight(op))
    return len(dims) == 4 and dims[1] == 1 and op.attr("group", 1) == dims[0] and min(op.window.pads) >= 0


def _weight(op: Site) -> int:
    return 1 if op.node.op_type == "Conv" else op.named("w")


def _maps(op: Site) -> tuple[int, int, int, int, int, int]:
    """N, C, H, W, P and Q of a depthwise convolution or of a gradient of one."""
    if op.node.op_type == "Conv":
        (n, c, h, w), (_, _, p, q) = op.sizes(0), op.out
    else:
        (n, c, h, w), (_, _, p, q) = op.sizes(op.named("x")), op.sizes(op.named("dy"))
    return n, c, h, w, p, q


def _filter(op: Site, scale: Value | None = None) -> Value:
    """The filters [C, kh·kw], each times its scale."""
    c, _, kh, kw = op.dims(_weight(op))
    weight = op.reshape(op.plain(_weight(op)), (c, kh * kw))
    return weight if scale is None else op.Mul(weight, op.reshape(scale, (c, 1)))


def _filter_gradient(op: Site, weight: Value, scale: Value | None) -> Value:
    """[C, kh·kw], each row times its scale, as a weight [C, 1, kh, kw]."""
    dims = op.dims(op.named("w"))
    if scale is not None:
        weight = op.Mul(weight, op.reshape(scale, (dims[0], 1)))
    return op.reshape(weight, dims)


def _constant(op: Site, matrix: Matrix) -> Value:
    return op.builder.constant(matrix, op.node.outputs[0].dtype)


# Blocks of channels: the batch beside the channels, and both in blocks.


def _blocked(op: Site) -> bool:
    if not _depthwise(op):
        return False
    n, c, *_ = _maps(op)
    return n * c % 16 == 0 and op.node.outputs[0].dtype == ir.DataType.FLOAT


@form("Conv", CNHW, legal=_blocked, local=True)
def blocked(op: Site) -> Output:
    """One map of N·C channels, in blocks; a bias and a ReLU behind wait."""
    _, _, h, w, p, q = _maps(op)
    y = _convolved(op, op.read(0), (h, w), _filter(op), op.window, (p, q))
    return with_bias(op, y)


def _unit(op: Site) -> bool:
    window = op.window
    back = [e - 1 - p for e, p in zip(window.extents * 2, window.pads, strict=True)]
    return _blocked(op) and all(s == 1 for s in window.strides) and min(back) >= 0


@form("ConvGradInput", CNHW, legal=_unit, local=True)
def blocked_back(op: Site) -> Output:
    """The same of dy with the filter turned by half a turn."""
    _, _, h, w, p, q = _maps(op)
    window = op.window
    dy, outer = op.core(op.named("dy"))
    taps = np.arange(prod(window.kernel_shape))[::-1]
    turned = op.Gather(_filter(op, outer), taps.copy(), axis=1)
    pads = tuple(e - 1 - p for e, p in zip(window.extents * 2, window.pads, strict=True))
    return _convolved(op, dy, (p, q), turned, replace(window, pads=pads), (h, w))


def _convolved(
    op: Site, x: Value, size: tuple[int, int], taps: Value, window: Window, out: tuple[int, int]
) -> Value:
    """[C, N, H, W] by filters [C, kh·kw]: [C, N, P, Q].

    `ReorderInput` brings maps and filters into blocks of the size that this machine has.
    """
    n, c, *_ = _maps(op)
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


# Rows, as many at once as a stride takes: a group of s rows meets output rows at a few offsets.


def _in_rows(op: Site) -> bool:
    if not _depthwise(op):
        return False
    _, c, _, w, _, q = _maps(op)
    return (
        max(c, prod(op.window.kernel_shape)) * op.window.strides[0] * w * len(_offsets(op)) * q * 4 <= LARGEST
    )


@form("Conv", CNHW, legal=_in_rows)
def rows(op: Site) -> Output:
    """Groups of rows times the bands of all offsets; each offset's rows moved to their place, and added."""
    n, c, _, _, p, q = _maps(op)
    groups, offsets = _groups(op), _offsets(op)
    each = op.MatMul(_grouped(op, 0), _bands(op, None))
    each = op.reshape(each, (c * n, groups, len(offsets) * q))
    parts = op.Split(each, [q] * len(offsets), axis=2, outputs=len(offsets)) if len(offsets) > 1 else [each]
    moved = [_moved(op, part, groups, p, offset, q) for part, offset in zip(parts, offsets, strict=True)]
    y = moved[0] if len(moved) == 1 else op.Sum(*moved)
    return with_bias(op, op.reshape(y, (c, n, p, q)))


@form("ConvGradInput", CNHW, legal=_in_rows)
def rows_back(op: Site) -> Output:
    """The rows of dy at all offsets side by side, times the bands transposed."""
    n, c, h, w, _, _ = _maps(op)
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
    n, c, _, w, p, q = _maps(op)
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
        op.MatMul(band, _constant(op, banded[:, :, i].reshape(-1, width * q).T))
        for i, band in enumerate(bands)
    ]
    return _filter_gradient(op, op.Sum(*parts) if len(parts) > 1 else parts[0], outer)


@form("ConvGradWeight", CNHW, legal=_in_rows)
def rows_together_weight(op: Site) -> Output:
    """The same as one product with the rows of dy at all offsets, which `rows_back` has, too."""
    _, c, _, w, _, q = _maps(op)
    together, outer = _offset_gradient(op)
    x = op.Transpose(_grouped(op, op.named("x")), perm=[0, 2, 1])
    band = op.reshape(op.MatMul(x, together), (c, op.window.strides[0] * w * len(_offsets(op)) * q))
    return _filter_gradient(op, op.MatMul(band, _constant(op, _banded(op).T)), outer)


def _groups(op: Site) -> int:
    """Groups of as many rows as the stride takes, the last one filled up with zeros."""
    return -(-_maps(op)[2] // op.window.strides[0])


def _offsets(op: Site) -> list[int]:
    """By how many groups those that a window sees lie behind the group of its own number."""
    window = op.window
    first = [tap * window.dilations[0] - window.begins[0] for tap in range(window.kernel_shape[0])]
    return sorted({row // window.strides[0] for row in first})


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
    n, c, *_ = _maps(op)
    flat = op.reshape(rows, (c * n, have * width))
    if not offset and have == want:
        return flat
    return op.Pad(flat, [0, -offset * width, 0, (want + offset - have) * width])


def _offset_gradient(op: Site) -> tuple[Value, Value | None]:
    """[C, N·groups, offsets·Q]: beside each other the rows of dy that see a group; and the scale dy lacks."""
    n, c, _, _, p, q = _maps(op)
    index = op.named("dy")
    dy, outer = op.core(index)
    groups, offsets = _groups(op), _offsets(op)

    def make() -> Value:
        moved = [op.reshape(_moved(op, dy, p, groups, -offset, q), (c, n * groups, q)) for offset in offsets]
        return moved[0] if len(moved) == 1 else op.Concat(*moved, axis=2)

    return op.share("offset rows", dy, op.window, groups, make=make), outer


def _bands(op: Site, scale: Value | None) -> Value:
    """[C, stride·W, offsets·Q], made once."""
    _, c, _, w, _, q = _maps(op)
    dims = (c, op.window.strides[0] * w, len(_offsets(op)) * q)
    return op.share(
        "bands",
        op.value(_weight(op)),
        scale,
        op.window,
        dims,
        make=lambda: op.reshape(op.MatMul(_filter(op, scale), _constant(op, _banded(op))), dims),
    )


def _banded(op: Site) -> Matrix:
    """[kh·kw, stride·W·offsets·Q]: 1 where the tap joins a place in a group and one in an offset's row."""
    _, _, _, w, _, q = _maps(op)
    window, offsets = op.window, _offsets(op)
    down = np.zeros((window.kernel_shape[0], window.strides[0], len(offsets)))
    for tap in range(window.kernel_shape[0]):
        offset, row = divmod(tap * window.dilations[0] - window.begins[0], window.strides[0])
        down[tap, row, offsets.index(offset)] = 1
    along = _taps(op, 1, w, q)
    return np.einsum("iro,jwq->ijrwoq", down, along).reshape(prod(window.kernel_shape), -1)


# Whole maps.


def _small(op: Site) -> bool:
    if not _depthwise(op):
        return False
    _, c, h, w, p, q = _maps(op)
    return max(c, prod(op.window.kernel_shape)) * h * w * p * q * 4 <= LARGEST


@form("Conv", CNHW, legal=_small)
def toeplitz(op: Site) -> Output:
    """y = x·T for each channel, x [N, H·W] and T [H·W, P·Q]."""
    n, c, h, w, p, q = _maps(op)
    y = op.MatMul(op.reshape(op.read(0), (c, n, h * w)), _toeplitz(op, None))
    return with_bias(op, op.reshape(y, (c, n, p, q)))


@form("ConvGradInput", CNHW, legal=_small)
def toeplitz_back(op: Site) -> Output:
    """dx = dy·Tᵀ."""
    n, c, h, w, p, q = _maps(op)
    dy, outer = op.core(op.named("dy"))
    band = op.Transpose(_toeplitz(op, outer), perm=[0, 2, 1])
    return op.reshape(op.MatMul(op.reshape(dy, (c, n, p * q)), band), (c, n, h, w))


@form("ConvGradWeight", CNHW, legal=_small)
def toeplitz_weight(op: Site) -> Output:
    """dT = xᵀ·dy, and dw = dT·Eᵀ where T = w·E."""
    n, c, h, w, p, q = _maps(op)
    dy, outer = op.core(op.named("dy"))
    x = op.Transpose(op.reshape(op.read(op.named("x")), (c, n, h * w)), perm=[0, 2, 1])
    band = op.MatMul(x, op.reshape(dy, (c, n, p * q)))
    flat = op.reshape(band, (c, h * w * p * q))
    return _filter_gradient(op, op.MatMul(flat, _constant(op, _whole(op).T)), outer)


def _toeplitz(op: Site, scale: Value | None) -> Value:
    """[C, H·W, P·Q], made once."""
    _, c, h, w, p, q = _maps(op)
    return op.share(
        "toeplitz",
        op.value(_weight(op)),
        scale,
        op.window,
        (h, w, p, q),
        make=lambda: op.reshape(op.MatMul(_filter(op, scale), _constant(op, _whole(op))), (c, h * w, p * q)),
    )


def _whole(op: Site) -> Matrix:
    """E [kh·kw, H·W·P·Q]: 1 where the tap joins the input place and the output place."""
    _, _, h, w, p, q = _maps(op)
    down, along = (_taps(op, axis, size, out) for axis, size, out in ((0, h, p), (1, w, q)))
    return np.einsum("ihp,jwq->ijhwpq", down, along).reshape(-1, h * w * p * q)


def _taps(op: Site, axis: int, size: int, out: int) -> Matrix:
    """[taps, size, out]: 1 where the tap of an output element sees the input element."""
    window = op.window
    matrix = np.zeros((window.kernel_shape[axis], size, out))
    for tap in range(window.kernel_shape[axis]):
        for place in range(out):
            seen = place * window.strides[axis] + tap * window.dilations[axis] - window.begins[axis]
            if 0 <= seen < size:
                matrix[tap, seen, place] = 1
    return matrix
