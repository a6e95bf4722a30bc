"""Reductions: the gradient goes back to every element that was reduced."""

from __future__ import annotations

from cnnc.autodiff.rule import Context, Gradients, Value, rule


@rule("ReduceSum")
def reduce_sum(op: Context, dy: Value) -> Gradients:
    return _expand(op, dy)


@rule("ReduceMean")
def reduce_mean(op: Context, dy: Value) -> Gradients:
    return op.Div(_expand(op, dy), _ratio(op))


def _axes(op: Context) -> list[int]:
    """The reduced axes, none negative."""
    rank = len(op.dims(op.x))
    axes = op.constant(1)
    if not axes:
        return [] if op.attr("noop_with_empty_axes") else list(range(rank))
    return sorted(axis % rank for axis in axes)


def _expand(op: Context, dy: Value) -> Value:
    """dy with its reduced axes back, expanded to the input's shape."""
    if not op.attr("keepdims") and _axes(op):
        dy = op.Unsqueeze(dy, _axes(op))
    expanded: Value = op.Expand(dy, op.Shape(op.x), dims=op.dims(op.x))
    return expanded


def _ratio(op: Context) -> Value:
    """How many elements each mean was taken over, as a scalar of the input's type."""
    sizes = op.Gather(op.Shape(op.x), _axes(op))
    count: Value = op.CastLike(op.ReduceProd(sizes, keepdims=0), op.x)
    return count
