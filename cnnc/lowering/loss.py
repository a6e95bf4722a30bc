"""Bodies of softmax cross-entropy and its gradient. Logits [N, C, …], labels [N, …], weights [C]."""

from __future__ import annotations

import numpy as np

from cnnc.lowering.body import Call, Value, body


@body("SoftmaxCrossEntropy")
def log_softmax(op: Call, logits: Value, labels: Value, weights: Value | None = None) -> tuple[Value, Value]:
    """LogSoftmax, then the label's entry picked by a product with its one-hot vector."""
    log_probabilities = op.LogSoftmax(logits, axis=1)
    picked = op.Mul(log_probabilities, _target(op, logits, labels, weights))
    return op.Neg(op.ReduceSum(picked, [1], keepdims=0)), log_probabilities


@body("SoftmaxCrossEntropyGrad")
def softmax_minus_target(
    op: Call, dlosses: Value, log_probabilities: Value, labels: Value, weights: Value | None = None
) -> Value:
    """(exp(log softmax) - target) · dlosses; with weights the softmax is scaled to the target's sum."""
    target, softmax = _target(op, log_probabilities, labels, weights), op.Exp(log_probabilities)
    if weights is not None:
        softmax = op.Mul(softmax, op.ReduceSum(target, [1], keepdims=1))
    return op.Mul(op.Sub(softmax, target), op.Unsqueeze(dlosses, [1]))


def _target(op: Call, like: Value, labels: Value, weights: Value | None) -> Value:
    """What the labels stand for: one-hot, or smoothed with the uniform distribution; times the weights."""
    dims = op.dims(like)
    smoothing = op.attr("label_smoothing")
    assert like.dtype is not None
    off, on = smoothing / int(dims[1]), 1.0 - smoothing + smoothing / int(dims[1])
    values = op.builder.constant(np.array([off, on]), like.dtype)
    target = op.OneHot(labels, int(dims[1]), values, axis=1, dims=dims)
    if weights is not None:
        target = op.Mul(target, op.reshape(weights, (dims[1], *[1] * (len(dims) - 2))))
    return target
