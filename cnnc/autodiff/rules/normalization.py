"""Normalisation."""

from __future__ import annotations

from cnnc.autodiff.rule import Context, Gradients, Value, rule


@rule("BatchNormalizationTraining")
def batch_normalization_training(op: Context, dy: Value, *dstatistics: Value | None) -> Gradients:
    if any(gradient is not None for gradient in dstatistics):
        raise op.unsupported("a loss that reads its statistics")
    x, scale = op.inputs[:2]
    _, _, _, batch_mean, inv_std = op.node.outputs
    return op.BatchNormalizationGrad(dy, x, scale, batch_mean, inv_std)


@rule("BatchNormalization")
def batch_normalization(op: Context, dy: Value) -> Gradients:
    """In inference form the running statistics are constants: an affine map of each channel."""
    x, scale, _, mean, var = op.inputs
    rank = len(op.dims(op.x))
    axes = [i for i in range(rank) if i != 1]
    inv_std = op.Reciprocal(op.Sqrt(op.Add(var, op.attr("epsilon"))))
    channels = [-1, *[1] * (rank - 2)]
    spread = op.Mul(dy, op.Sub(x, op.Reshape(mean, channels)))
    return (
        op.Mul(dy, op.Reshape(op.Mul(scale, inv_std), channels)),
        op.Mul(op.ReduceSum(spread, axes, keepdims=0), inv_std),
        op.ReduceSum(dy, axes, keepdims=0),
    )
