"""Bodies of batch normalisation in training: x [N, C, …], statistics [C].

Ioffe and Szegedy, "Batch Normalization", 2015. Decomposed, because ONNX since opset 14 gives no saved mean
and variance, and ONNX Runtime's CUDA provider has no training form.
"""

from __future__ import annotations

import math

from cnnc.ir import is_static
from cnnc.lowering.body import Call, Value, body


@body("BatchNormalizationTraining")
def decomposed(
    op: Call, x: Value, scale: Value, bias: Value, running_mean: Value, running_var: Value
) -> tuple[Value, ...]:
    """Two passes over x for its mean and variance (no cancellation), one product and one sum for y."""
    momentum = op.attr("momentum")
    mean = _channel_mean(op, x)
    centred = op.Sub(x, _spread(op, mean, x))
    var = _channel_mean(op, op.Mul(centred, centred))
    inv_std = op.Reciprocal(op.Sqrt(op.Add(var, op.attr("epsilon"))))
    y = op.Add(op.Mul(centred, _spread(op, op.Mul(inv_std, scale), x)), _spread(op, bias, x))
    next_mean = op.Add(op.Mul(running_mean, momentum), op.Mul(mean, 1.0 - momentum))
    next_var = op.Add(op.Mul(running_var, momentum), op.Mul(var, 1.0 - momentum))
    return y, next_mean, next_var, mean, inv_std


@body("BatchNormalizationGrad")
def three_terms(
    op: Call, dy: Value, x: Value, scale: Value, batch_mean: Value, inv_std: Value
) -> tuple[Value, Value, Value]:
    """dx = scale·inv_std·(dy - mean(dy) - x̂·mean(dy·x̂)); dscale = Σ dy·x̂, dbias = Σ dy."""
    normalised = op.Mul(op.Sub(x, _spread(op, batch_mean, x)), _spread(op, inv_std, x))
    dbias = _channel_sum(op, dy)
    dscale = _channel_sum(op, op.Mul(dy, normalised))
    count = _count(op, x)
    inner = op.Sub(
        op.Sub(dy, _spread(op, op.Div(dbias, count), x)),
        op.Mul(normalised, _spread(op, op.Div(dscale, count), x)),
    )
    return op.Mul(inner, _spread(op, op.Mul(scale, inv_std), x)), dscale, dbias


def _spread(op: Call, statistic: Value, like: Value) -> Value:
    """[C] → [C, 1, …], to broadcast against `like`."""
    rank = len(op.dims(like))
    return op.Reshape(statistic, [-1, *[1] * (rank - 2)], dims=(op.dims(like)[1], *[1] * (rank - 2)))


def _flat(op: Call, x: Value) -> Value:
    """[N, C, …] → [N, C, area] where the area is static: then the inner sums run over one long span."""
    dims = op.dims(x)
    if len(dims) > 3 and is_static(dims[2:]):
        return op.reshape(x, (dims[0], dims[1], math.prod(int(d) for d in dims[2:])))
    return x


def _channel_sum(op: Call, x: Value) -> Value:
    """Σ over all axes but channels: space first, then the batch."""
    x = _flat(op, x)
    rank = len(op.dims(x))
    inner = op.ReduceSum(x, list(range(2, rank)), keepdims=0) if rank > 2 else x
    return op.ReduceSum(inner, [0], keepdims=0)


def _channel_mean(op: Call, x: Value) -> Value:
    x = _flat(op, x)
    rank = len(op.dims(x))
    inner = op.ReduceMean(x, list(range(2, rank)), keepdims=0) if rank > 2 else x
    return op.ReduceMean(inner, [0], keepdims=0)


def _count(op: Call, x: Value) -> Value:
    """How many elements each channel has, as a scalar of x's type."""
    sizes = op.Gather(op.Shape(x), [i for i in range(len(op.dims(x))) if i != 1])
    return op.CastLike(op.ReduceProd(sizes, keepdims=0), x)
