"""Pooling."""

from __future__ import annotations

import math

from cnnc.autodiff.rule import Context, Gradients, Value, rule
from cnnc.ir.windows import window_of


@rule("MaxPool")
def max_pool(op: Context, dy: Value, _dindices: None = None) -> Gradients:
    window = window_of(op.node).attributes()
    return op.MaxPoolGrad(dy, op.x, op.y, **window, ceil_mode=op.attr("ceil_mode"))


@rule("AveragePool")
def average_pool(op: Context, dy: Value) -> Gradients:
    return op.AveragePoolGrad(
        dy,
        op.x,
        **window_of(op.node).attributes(),
        ceil_mode=op.attr("ceil_mode"),
        count_include_pad=op.attr("count_include_pad"),
    )


@rule("GlobalAveragePool")
def global_average_pool(op: Context, dy: Value) -> Gradients:
    area = op.dims(op.x)[2:]
    if all(isinstance(d, int) for d in area):
        share = op.Div(dy, float(math.prod(int(d) for d in area)))
    else:
        count = op.ReduceProd(op.Shape(op.x, start=2), keepdims=0)
        share = op.Div(dy, op.CastLike(count, dy))
    return op.Expand(share, op.Shape(op.x), dims=op.dims(op.x))
