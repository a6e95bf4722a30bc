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


@rule("GlobalAveragePool")
def global_average_pool(op: Context, dy: Value) -> Gradients:
    area = op.dims(op.x)[2:]
    if all(isinstance(d, int) for d in area):
        share = op.Div(dy, float(math.prod(int(d) for d in area)))
    else:
        count = op.ReduceProd(op.Shape(op.x, start=2), keepdims=0)
        share = op.Div(dy, op.CastLike(count, dy))
    return op.Expand(share, op.Shape(op.x), dims=op.dims(op.x))


def _window(op: Context) -> dict[str, Any]:
    """The window's attributes; ONNX's type inference must have counted as many windows as runtimes do.

    With ceil_mode, runtimes leave out a last window that begins in the end pad. Inference does only since
    opset 19.
    """
    window = window_of(op.node)
    sizes = zip(op.dims(op.x)[2:], op.dims(op.y)[2:], window.strides, window.begins, strict=True)
    for size, count, stride, begin in sizes:
        if isinstance(size, int) and isinstance(count, int) and (count - 1) * stride >= size + begin:
            raise op.unsupported("ceil_mode and a last window that begins outside the input")
    return window.attributes()
