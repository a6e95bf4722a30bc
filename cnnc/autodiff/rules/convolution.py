"""Convolutions. The pads of a node that says auto_pad are made explicit before (see `cnnc.ir.windows`)."""

from __future__ import annotations

from cnnc.autodiff.rule import Context, Gradients, Value, rule
from cnnc.ir.windows import window_of


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
