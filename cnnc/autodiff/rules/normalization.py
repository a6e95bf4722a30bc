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
    channels = [-1, *[1] * (len(op.dims(op.x)) - 2)]
    inv_std = op.Reciprocal(op.Sqrt(op.Add(var, op.attr("epsilon"))))
    spread = op.Mul(dy, op.Sub(x, op.Reshape(mean, channels)))
    return (
        op.Mul(dy, op.Reshape(op.Mul(scale, inv_std), channels)),
        op.Mul(_channel_sum(op, spread), inv_std),
        _channel_sum(op, dy),
    )


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


def _channel_sum(op: Context, value: Value) -> Value:
    """Σ over all axes but channels: space first, then the batch, which is faster than both at once."""
    space = list(range(2, len(op.dims(value))))
    inner = op.ReduceSum(value, space, keepdims=0) if space else value
    total: Value = op.ReduceSum(inner, [0], keepdims=0)
    return total
