"""Reductions: the gradient goes back to every element that was reduced."""

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


def _axes(op: Context) -> list[int]:
    """The reduced axes, none negative."""
    rank = len(op.dims(op.x))
    axes = op.constant(1)
    if not axes:
        return [] if op.attr("noop_with_empty_axes") else list(range(rank))
    return sorted(axis % rank for axis in axes)


def _expand(op: Context, dy: Value) -> Value:
    """dy with its reduced axes back, expanded to the input's shape."""
    axes = _axes(op)
    if not axes:
        return dy
    if not op.attr("keepdims"):
        dy = op.Unsqueeze(dy, axes)
    expanded: Value = op.Expand(dy, op.Shape(op.x), dims=op.dims(op.x))
    return expanded


def _count(op: Context) -> Value | float:
    """How many elements each mean is over: a number, or a scalar where only the run knows."""
    axes = _axes(op)
    dims = [op.dims(op.x)[axis] for axis in axes]
    if is_static(dims):
        return float(math.prod(int(d) for d in dims))
    count: Value = op.CastLike(op.ReduceProd(op.Gather(op.Shape(op.x), axes), keepdims=0), op.x)
    return count
