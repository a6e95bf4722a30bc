"""Losses that are gradient ops themselves."""

from __future__ import annotations

from cnnc.autodiff.rule import Context, Gradients, Value, rule


@rule("SoftmaxCrossEntropy")
def softmax_cross_entropy(op: Context, dlosses: Value, dlog: Value | None) -> Gradients:
    if dlog is not None:
        raise op.unsupported("a loss that reads its log-probabilities")
    return op.SoftmaxCrossEntropyGrad(
        dlosses, op.node.outputs[1], *op.inputs[1:], label_smoothing=op.attr("label_smoothing")
    )
