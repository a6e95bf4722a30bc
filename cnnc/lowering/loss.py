"""Bodies of softmax cross-entropy and its gradient. Logits [N, C, …], labels [N, …]."""

from __future__ import annotations

import numpy as np

from cnnc.lowering.body import Call, Value, body


@body("SoftmaxCrossEntropy")
def log_softmax(op: Call, logits: Value, labels: Value) -> tuple[Value, Value]:
    """LogSoftmax, then the label's entry picked by a product with its one-hot vector."""
    log_probabilities = op.LogSoftmax(logits, axis=1)
    picked = op.Mul(log_probabilities, _target(op, logits, labels))
    return op.Neg(op.ReduceSum(picked, [1], keepdims=0)), log_probabilities


@body("SoftmaxCrossEntropyGrad")
def softmax_minus_target(op: Call, dlosses: Value, log_probabilities: Value, labels: Value) -> Value:
    """(exp(log softmax) - target) · dlosses."""
    difference = op.Sub(op.Exp(log_probabilities), _target(op, log_probabilities, labels))
    return op.Mul(difference, op.Unsqueeze(dlosses, [1]))


def _target(op: Call, like: Value, labels: Value) -> Value:
    """The distribution q that the labels stand for: one-hot, or smoothed with the uniform one."""
    classes = int(op.dims(like)[1])
    smoothing = op.attr("label_smoothing")
    assert like.dtype is not None
    off, on = smoothing / classes, 1.0 - smoothing + smoothing / classes
    values = op.builder.constant(np.array([off, on]), like.dtype)
    return op.OneHot(labels, classes, values, axis=1, dims=op.dims(like))
