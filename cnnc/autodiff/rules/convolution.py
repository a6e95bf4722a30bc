"""Convolutions. The pads of a node that says auto_pad are made explicit before (see `cnnc.ir.windows`)."""

from __future__ import annotations

from cnnc.autodiff.rule import Context, Gradients, Value, rule
from cnnc.ir.windows import transposed_window_of, window_of


@rule("Conv")
def conv(op: Context, dy: Value) -> Gradients:
    x, w = op.inputs[:2]
    b = op.input(2)
    attributes = {**window_of(op.node).attributes(), "group": op.attr("group") or 1}
    return (
        op.ConvGradInput(dy, w, x, **attributes),
        op.ConvGradWeight(dy, x, w, **attributes),
        None if b is None else op.ConvGradBias(dy, b),
    )[: len(op.inputs)]


@rule("ConvTranspose")
def conv_transpose(op: Context, dy: Value) -> Gradients:
    """It is the input gradient of a Conv: so dx is that Conv of dy, and dw its dw with x and dy swapped."""
    x, w = op.inputs[:2]
    b = op.input(2)
    attributes = {**transposed_window_of(op.node).attributes(), "group": op.attr("group") or 1}
    return (
        op.Conv(dy, w, **attributes, dims=op.dims(op.x)),
        op.ConvGradWeight(x, dy, w, **attributes),
        None if b is None else op.ConvGradBias(dy, b),
    )[: len(op.inputs)]
