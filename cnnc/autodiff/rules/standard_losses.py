"""The losses that ONNX has as operators: input [N, C, …], target [N, …], and a weight for each class."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from cnnc.autodiff.rule import Context, Gradients, Value, rule


@rule("NegativeLogLikelihoodLoss")
def negative_log_likelihood_loss(op: Context, dy: Value) -> Gradients:
    """The target's own entry gets -dy times its share in the loss."""
    one_hot, share = _one_hot_and_share(op, dy)
    return op.Neg(op.Mul(one_hot, share))


@rule("SoftmaxCrossEntropyLoss")
def softmax_cross_entropy_loss(op: Context, dy: Value | None, dlog: Value | None = None) -> Gradients:
    """(softmax - one-hot) · dy · share; and dlog - softmax·Σ dlog, where the log-probabilities are read."""
    logs = op.node.outputs[1] if len(op.node.outputs) > 1 else op.LogSoftmax(op.x, axis=1)
    softmax = op.Exp(logs)
    parts = []
    if dy is not None:
        one_hot, share = _one_hot_and_share(op, dy)
        parts.append(op.Mul(op.Sub(softmax, one_hot), share))
    if dlog is not None:
        parts.append(op.Sub(dlog, op.Mul(softmax, op.ReduceSum(dlog, [1]))))
    return parts[0] if len(parts) == 1 else op.Add(*parts)


def _one_hot_and_share(op: Context, dy: Value) -> tuple[Value, Value]:
    """The target as vectors of 0 and 1, and what the loss of each element counts, times dy: [N, 1, …] or [].

    The mean is over the weights. An ignored element has the weight 0.
    """
    if len(op.needed) > 2 and op.needed[2]:
        raise op.unsupported("class weights that are trained")
    target, weight, ignored = op.Cast(op.inputs[1], to=int(ir.DataType.INT64)), op.input(2), None
    if "ignore_index" in op.node.attributes:
        ignored = op.Equal(target, op.attr("ignore_index"))
        target = op.Where(ignored, 0, target)
    counted = None if weight is None else op.Gather(weight, target)
    if ignored is not None:
        kept = op.Sub(op.number(1.0), op.CastLike(ignored, op.x))
        counted = kept if counted is None else op.Mul(counted, kept)
    if op.attr("reduction") == "mean":
        total = op.CastLike(op.Size(target), dy) if counted is None else op.ReduceSum(counted, keepdims=0)
        dy = op.Div(dy, total)
    share = dy if counted is None else op.Mul(counted, dy)
    classes = op.dims(op.x)[1]
    depth = classes if isinstance(classes, int) else op.Shape(op.x, start=1, end=2)
    one_hot = op.OneHot(target, depth, op.number(np.array([0.0, 1.0])), axis=1, dims=op.dims(op.x))
    return one_hot, op.Unsqueeze(share, [1]) if op.dims(share) else share
