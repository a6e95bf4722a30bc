"""Pooling."""

from __future__ import annotations

import math
from typing import Any

from cnnc.autodiff.rule import Context, Gradients, Value, rule
from cnnc.ir.windows import window_of


@rule("MaxPool")
def max_pool(op: Context, dy: Value, _dindices: None = None) -> Gradients:
    return op.MaxPoolGrad(dy, op.x, op.y, **_window(op), ceil_mode=op.attr("ceil_mode"))


@rule("AveragePool")
def average_pool(op: Context, dy: Value) -> Gradients:
    return op.AveragePoolGrad(
        dy,
        op.x,
        **_window(op),
        ceil_mode=op.attr("ceil_mode"),
        count_include_pad=op.attr("count_include_pad"),
    )


@rule("LpPool")
def lp_pool(op: Context, dy: Value) -> Gradients:
    return op.LpPoolGrad(dy, op.x, op.y, **_window(op), ceil_mode=op.attr("ceil_mode"), p=op.attr("p"))


@rule("GlobalAveragePool")
def global_average_pool(op: Context, dy: Value) -> Gradients:
    area = op.dims(op.x)[2:]
    if all(isinstance(d, int) for d in area):
        share = op.Div(dy, float(math.prod(int(d) for d in area)))
    else:
        count = op.ReduceProd(op.Shape(op.x, start=2), keepdims=0)
        share = op.Div(dy, op.CastLike(count, dy))
    return op.Expand(share, op.Shape(op.x), dims=op.dims(op.x))


@rule("GlobalMaxPool")
def global_max_pool(op: Context, dy: Value) -> Gradients:
    """Elements that tie for the maximum share dy evenly."""
    axes = list(range(2, len(op.dims(op.x))))
    winners = op.mask(op.Equal(op.x, op.y))
    return op.Mul(winners, op.Div(dy, op.ReduceSum(winners, axes, keepdims=1)))


@rule("GlobalLpPool")
def global_lp_pool(op: Context, dy: Value) -> Gradients:
    """dx = dy · x·|x|ᵖ⁻²/yᵖ⁻¹, and 0 for the norm of zeros."""
    p = op.attr("p")
    if p == 1:
        return op.Mul(dy, op.Sign(op.x))
    norm = op.Add(op.y, op.mask(op.Equal(op.y, 0.0)))
    ratio = op.Div(op.x, norm)
    if p > 2:
        ratio = op.Mul(op.Sign(ratio), op.Pow(op.Abs(ratio), op.number(float(p - 1))))
    return op.Mul(dy, ratio)


def _window(op: Context) -> dict[str, Any]:
    """The window's attributes; ONNX's type inference must have counted as many windows as runtimes do.

    With ceil_mode, runtimes leave out a last window that begins in the end pad. Inference does only since
    opset 19.
    """
    window = window_of(op.node)
    if not op.attr("ceil_mode"):
        return window.attributes()
    for i, (size, count) in enumerate(zip(op.dims(op.x)[2:], op.dims(op.y)[2:], strict=True)):
        stride, begin, end, extent = window.strides[i], window.begins[i], window.ends[i], window.extents[i]
        if not isinstance(size, int) or not isinstance(count, int):
            if end + stride > extent:
                raise op.unsupported(f"ceil_mode, end pads of {end} and the symbolic size {size}")
        elif (count - 1) * stride >= size + begin:
            raise op.unsupported("ceil_mode and a last window that begins outside the input")
    return window.attributes()
