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
def batch_normalization(op: Context, dy: Value, *dstatistics: Value | None) -> Gradients:
    """In inference form the running statistics are inputs like others: an affine map of each channel."""
    if any(gradient is not None for gradient in dstatistics):
        raise op.unsupported("a loss that reads its statistics")
    x, scale, _, mean, var = op.present
    if op.attr("training_mode"):
        return op.BatchNormalizationGrad(dy, x, scale, *_batch_statistics(op))
    channels = [-1, *[1] * (len(op.dims(x)) - 2)]
    inv_std = op.Reciprocal(op.Sqrt(op.Add(var, op.attr("epsilon"))))
    spread = op.Mul(_channel_sum(op, op.Mul(dy, op.Sub(x, op.Reshape(mean, channels)))), inv_std)
    total = _channel_sum(op, dy)
    slope = op.Mul(scale, inv_std)
    dmean = op.Neg(op.Mul(total, slope)) if op.needed[3] else None
    dvar = op.Mul(op.Mul(spread, -0.5), op.Mul(slope, inv_std)) if op.needed[4] else None
    return op.Mul(dy, op.Reshape(slope, channels)), spread, total, dmean, dvar


@rule("InstanceNormalization")
def instance_normalization(op: Context, dy: Value) -> Gradients:
    return op.InstanceNormalizationGrad(dy, *op.inputs[:2], epsilon=op.attr("epsilon"))


@rule("LayerNormalization")
def layer_normalization(op: Context, dy: Value, *dstatistics: Value | None) -> Gradients:
    if any(gradient is not None for gradient in dstatistics):
        raise op.unsupported("a loss that reads its statistics")
    axis = op.attr("axis") % len(op.dims(op.x))
    return op.LayerNormalizationGrad(dy, *op.inputs, axis=axis, epsilon=op.attr("epsilon"))


@rule("LRN")
def local_response_normalization(op: Context, dy: Value) -> Gradients:
    return op.LRNGrad(dy, op.x, **{name: op.attr(name) for name in ("alpha", "beta", "bias", "size")})


@rule("LpNormalization")
def lp_normalization(op: Context, dy: Value) -> Gradients:
    """dx = (dy - y·Σ dy·y)/|x| for p = 2, with sign(x) for the first y for p = 1; 0 for the norm of zeros."""
    axes, p = [op.attr("axis")], op.attr("p")
    norm = op.ReduceL2(op.x, axes) if p == 2 else op.ReduceL1(op.x, axes)
    zero = op.mask(op.Equal(norm, 0.0))
    along = op.ReduceSum(op.Mul(dy, op.y), axes)
    across = op.Sub(dy, op.Mul(op.y if p == 2 else op.Sign(op.x), along))
    return op.Mul(across, op.Div(op.Sub(1.0, zero), op.Add(norm, zero)))


def _batch_statistics(op: Context) -> tuple[Value, Value]:
    """Mean and 1/√(variance + ε) of each channel over this batch."""
    axes = [axis for axis in range(len(op.dims(op.x))) if axis != 1]
    centred = op.Sub(op.x, op.ReduceMean(op.x, axes, keepdims=1))
    variance = op.ReduceMean(op.Mul(centred, centred), axes, keepdims=0)
    inv_std = op.Reciprocal(op.Sqrt(op.Add(variance, op.attr("epsilon"))))
    return op.ReduceMean(op.x, axes, keepdims=0), inv_std


def _channel_sum(op: Context, value: Value) -> Value:
    """Σ over all axes but channels: space first, then the batch, which is faster than both at once."""
    space = list(range(2, len(op.dims(value))))
    inner = op.ReduceSum(value, space, keepdims=0) if space else value
    total: Value = op.ReduceSum(inner, [0], keepdims=0)
    return total
