"""Bodies of the normalisations of each example alone, over some of its axes.

With x̂ = (x - mean)/std over these axes and g = dy·scale, dx = (g - mean(g) - x̂·mean(g·x̂))/std (Ba, Kiros and
Hinton, "Layer Normalization", 2016). Mean and deviation are computed again: the forward operators do not all
hand them out.
"""

from __future__ import annotations

import math

import numpy as np

from cnnc.ir import Dim, is_static
from cnnc.lowering.body import Call, Value, body


@body("InstanceNormalizationGrad")
def sums_by_channel(op: Call, dy: Value, x: Value, scale: Value) -> tuple[Value, Value, Value]:
    """The two sums over space serve dx, dscale and dbias alike."""
    like, axes = x, [2]
    dy, x = _merge(op, dy, 2), _merge(op, x, 2)
    normalised, inv_std = _normalise(op, x, axes)
    total = op.ReduceSum(dy, axes)
    along = op.ReduceSum(op.Mul(dy, normalised), axes)
    count = op.CastLike(op.ReduceProd(op.Shape(x, start=2), keepdims=0), x)
    inner = op.Sub(op.Sub(dy, op.Div(total, count)), op.Mul(normalised, op.Div(along, count)))
    dx = op.Mul(inner, op.Mul(inv_std, op.Unsqueeze(scale, [1])))
    sums = (op.ReduceSum(each, [0, *axes], keepdims=0) for each in (along, total))
    return _as(op, dx, like), *sums


@body("LayerNormalizationGrad")
def three_means(op: Call, dy: Value, x: Value, scale: Value, bias: Value | None = None) -> tuple[Value, ...]:
    """As written above; dscale and dbias are sums over the axes before, the last of them first."""
    like, axis, affine = x, op.attr("axis"), [v for v in (scale, bias) if v is not None]
    whole = all(op.dims(each) == op.dims(x)[axis:] for each in affine)
    if whole:
        dy, x, scale = _merge(op, dy, axis), _merge(op, x, axis), _merge(op, scale, 0)
    axes = list(range(axis, len(op.dims(x))))
    normalised, inv_std = _normalise(op, x, axes)
    g = op.Mul(dy, scale)
    along = op.Mul(normalised, op.ReduceMean(op.Mul(g, normalised), axes))
    dx = op.Mul(op.Sub(op.Sub(g, op.ReduceMean(g, axes)), along), inv_std)
    fulls = op.Mul(dy, normalised), dy
    sums = (
        op.reshape(_sum_to(op, full, op.dims(scale if whole else each)), op.dims(each))
        for full, each in zip(fulls, affine, strict=False)
    )
    return _as(op, dx, like), *sums


@body("LRNGrad")
def banded(op: Call, dy: Value, x: Value) -> Value:
    """The sums over neighbouring channels are products with a banded matrix of ones.

    With s = bias + alpha/size · Σ x², dx = dy·s⁻ᵝ - 2·alpha·beta/size · x · Σ dy·x·s⁻ᵝ⁻¹, this sum over the
    channels that have x's among theirs.
    """
    alpha, beta, size, channels = op.attr("alpha"), op.attr("beta"), op.attr("size"), int(op.dims(x)[1])
    place = np.arange(channels)
    ahead = place - place[:, None]  # how far the channel of the column lies ahead of that of the row
    band = (-ahead <= (size - 1) // 2) & (ahead <= size // 2)
    near, seen_from = (op.builder.constant(matrix, x.dtype) for matrix in (band, band.T))
    like = x
    dy, x = _merge(op, dy, 2), _merge(op, x, 2)
    s = op.Add(op.Mul(op.MatMul(near, op.Mul(x, x)), alpha / size), op.attr("bias"))
    direct = op.Mul(dy, op.Pow(s, op.builder.constant(-beta, x.dtype)))
    shared = op.MatMul(seen_from, op.Div(op.Mul(direct, x), s))
    dx = op.Sub(direct, op.Mul(op.Mul(x, shared), 2.0 * alpha * beta / size))
    return _as(op, dx, like)


def _normalise(op: Call, x: Value, axes: list[int]) -> tuple[Value, Value]:
    """x̂ and 1/std."""
    centred = op.Sub(x, op.ReduceMean(x, axes))
    var = op.ReduceMean(op.Mul(centred, centred), axes)
    inv_std = op.Reciprocal(op.Sqrt(op.Add(var, op.attr("epsilon"))))
    return op.Mul(centred, inv_std), inv_std


def _merge(op: Call, value: Value, axis: int) -> Value:
    """The axes from `axis` on as one: sums then run over one long span."""
    lead, rest = op.dims(value)[:axis], op.dims(value)[axis:]
    if is_static(rest):
        return op.reshape(value, (*lead, math.prod(int(d) for d in rest)))
    return op.Reshape(value, [*[0] * axis, -1], dims=(*lead, "area"))


def _as(op: Call, value: Value, like: Value) -> Value:
    """Back in the shape of `like`."""
    dims = op.dims(like)
    if op.dims(value)[-1] == "area":
        return op.Reshape(value, op.Shape(like), dims=dims)
    return op.reshape(value, dims)


def _sum_to(op: Call, full: Value, dims: tuple[Dim, ...]) -> Value:
    """The sum over all axes along which a tensor of these dimensions is broadcast."""
    lead = len(op.dims(full)) - len(dims)
    spread = [lead + i for i, d in enumerate(dims) if d == 1 and op.dims(full)[lead + i] != 1]
    if spread:
        full = op.ReduceSum(full, spread)
    if lead > 1:
        full = op.ReduceSum(full, list(range(1, lead)), keepdims=0)
    return op.ReduceSum(full, [0], keepdims=0) if lead else full
