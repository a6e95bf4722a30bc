"""Reductions, whose gradient goes back to every element that was reduced, and running sums.

No axes (``noop_with_empty_axes``) reduce each element alone: its sum is itself, its norm |x|, as ONNX Runtime
and onnx's ReferenceEvaluator have it.
"""

from __future__ import annotations

import math

from cnnc.autodiff.rule import Context, Gradients, Value, rule
from cnnc.ir import is_static


@rule("ReduceSum")
def reduce_sum(op: Context, dy: Value) -> Gradients:
    return _expand(op, dy)


@rule("ReduceMean")
def reduce_mean(op: Context, dy: Value) -> Gradients:
    return _expand(op, op.Div(dy, _count(op)))


@rule("ReduceMax", "ReduceMin")
def reduce_max_min(op: Context, dy: Value) -> Gradients:
    """Elements that tie share dy evenly."""
    axes = _axes(op)
    if not axes:
        return dy
    winners = op.mask(op.Equal(op.x, _keep(op, op.y)))
    return op.Mul(winners, op.Div(_keep(op, dy), op.ReduceSum(winners, axes, keepdims=1)))


@rule("ReduceProd")
def reduce_prod(op: Context, dy: Value) -> Gradients:
    """dy times the product of the other elements, whatever number of them is zero.

    Zeros count as 1 in the product; an element with no other zero beside it gets that over its own factor.
    """
    axes = _axes(op)
    if not axes:
        return dy
    zero = op.mask(op.Equal(op.x, 0.0))
    factors = op.Add(op.x, zero)
    product = op.Mul(_keep(op, dy), op.ReduceProd(factors, axes, keepdims=1))
    no_other_zero = op.Equal(op.ReduceSum(zero, axes, keepdims=1), zero)
    return op.Mul(op.Div(product, factors), op.mask(no_other_zero))


@rule("ReduceL1")
def reduce_l1(op: Context, dy: Value) -> Gradients:
    return op.Mul(_keep(op, dy), op.Sign(op.x))


@rule("ReduceL2")
def reduce_l2(op: Context, dy: Value) -> Gradients:
    """dx = dy · x/|x|, and 0 for the norm of zeros."""
    norm = _keep(op, op.y)
    norm = op.Add(norm, op.mask(op.Equal(norm, 0.0)))
    return op.Mul(op.Div(_keep(op, dy), norm), op.x)


@rule("ReduceSumSquare")
def reduce_sum_square(op: Context, dy: Value) -> Gradients:
    return op.Mul(_keep(op, op.Mul(dy, 2.0)), op.x)


@rule("ReduceLogSum")
def reduce_log_sum(op: Context, dy: Value) -> Gradients:
    """d ln Σx / dx = 1/Σx."""
    return _expand(op, op.Div(dy, op.Exp(op.y)))


@rule("ReduceLogSumExp")
def reduce_log_sum_exp(op: Context, dy: Value) -> Gradients:
    """d ln Σeˣ / dx = eˣ/Σeˣ."""
    return op.Mul(_keep(op, dy), op.Exp(op.Sub(op.x, _keep(op, op.y))))


@rule("CumSum")
def cum_sum(op: Context, dy: Value) -> Gradients:
    """The running sum from the other end."""
    return op.CumSum(dy, op.inputs[1], exclusive=op.attr("exclusive"), reverse=1 - op.attr("reverse"))


def _axes(op: Context) -> list[int]:
    """The reduced axes, none negative."""
    rank = len(op.dims(op.x))
    axes = op.constant(1)
    if not axes:
        return [] if op.attr("noop_with_empty_axes") else list(range(rank))
    return sorted(axis % rank for axis in axes)


def _keep(op: Context, value: Value) -> Value:
    """The output, or its gradient, with the reduced axes back in their places, of size 1."""
    axes = _axes(op)
    return value if op.attr("keepdims") or not axes else op.Unsqueeze(value, axes)


def _expand(op: Context, dy: Value) -> Value:
    """dy with its reduced axes back, expanded to the input's shape."""
    if not _axes(op):
        return dy
    expanded: Value = op.Expand(_keep(op, dy), op.Shape(op.x), dims=op.dims(op.x))
    return expanded


def _count(op: Context) -> Value | float:
    """How many elements each mean is over: a number, or a scalar where only the run knows."""
    axes = _axes(op)
    dims = [op.dims(op.x)[axis] for axis in axes]
    if is_static(dims):
        return float(math.prod(int(d) for d in dims))
    count: Value = op.CastLike(op.ReduceProd(op.Gather(op.Shape(op.x), axes), keepdims=0), op.x)
    return count
