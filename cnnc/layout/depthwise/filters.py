"""What the forms of depthwise convolutions share: whether an operator is one, its sizes, its filters."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from cnnc.layout.form import Site, Value

Matrix = npt.NDArray[np.float64]
LARGEST = 2**26
"""Bytes of all bands, above which the forms that make bands are not offered."""


def is_depthwise(op: Site) -> bool:
    """One filter for each channel, one output channel for each filter."""
    dims = op.dims(op.named("w"))
    return len(dims) == 4 and dims[1] == 1 and op.attr("group", 1) == dims[0] and min(op.window.pads) >= 0


def maps_of(op: Site) -> tuple[int, int, int, int, int, int]:
    """N, C, H, W, P and Q of a depthwise convolution or of a gradient of one."""
    _, _, p, q = op.out if op.node.op_type == "Conv" else op.sizes(op.named("dy"))
    return *op.sizes(op.named("x")), p, q


def filters(op: Site, scale: Value | None = None) -> Value:
    """The filters [C, kh·kw], each times its scale."""
    w = op.named("w")
    c, _, kh, kw = op.dims(w)
    weight = op.reshape(op.plain(w), (c, kh * kw))
    return weight if scale is None else op.Mul(weight, op.reshape(scale, (c, 1)))


def filter_gradient(op: Site, weight: Value, scale: Value | None) -> Value:
    """A gradient [C, kh·kw] as one of the weight [C, 1, kh, kw], each row times its scale."""
    dims = op.dims(op.named("w"))
    if scale is not None:
        weight = op.Mul(weight, op.reshape(scale, (dims[0], 1)))
    return op.reshape(weight, dims)


def taps_along(op: Site, axis: int, size: int, out: int) -> Matrix:
    """[taps, size, out]: 1 where the tap of an output element sees the input element."""
    window = op.window
    matrix = np.zeros((window.kernel_shape[axis], size, out))
    for tap in range(window.kernel_shape[axis]):
        for place in range(out):
            seen = place * window.strides[axis] + tap * window.dilations[axis] - window.begins[axis]
            if 0 <= seen < size:
                matrix[tap, seen, place] = 1
    return matrix
