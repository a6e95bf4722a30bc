"""Operators that pick elements by indices, or put them somewhere.

Never ScatterND with a reduction: ONNX Runtime runs it on several threads, which lose updates where indices
repeat. ScatterElements adds one after the other.
"""

from __future__ import annotations

import math

from cnnc.autodiff.rule import Context, Gradients, Value, rule
from cnnc.autodiff.rules.shape import back_to
from cnnc.ir import is_static


@rule("Gather")
def gather(op: Context, dy: Value) -> Gradients:
    return op.GatherGrad(dy, op.x, op.inputs[1], axis=op.attr("axis"))


@rule("Compress")
def compress(op: Context, dy: Value) -> Gradients:
    """A Gather with the places where the condition holds."""
    places = op.Reshape(op.NonZero(op.inputs[1]), [-1])
    axis = op.attr("axis")
    if axis is not None:
        return op.GatherGrad(dy, op.x, places, axis=axis)
    return back_to(op, op.GatherGrad(dy, op.Reshape(op.x, [-1]), places, axis=0), op.x)


@rule("GatherElements")
def gather_elements(op: Context, dy: Value) -> Gradients:
    return op.ScatterElements(op.zeros(op.x), op.inputs[1], dy, axis=_axis(op), reduction="add")


@rule("GatherND")
def gather_nd(op: Context, dy: Value) -> Gradients:
    """A Gather from the input with its batch and indexed axes made one."""
    indices, batch_dims = op.present[1], op.attr("batch_dims")
    first = batch_dims + int(op.dims(indices)[-1])
    shape = op.Concat([-1], op.Shape(op.x, start=first), axis=0)
    rows = op.Reshape(op.x, shape, dims=(op.builder.unique("rows"), *op.dims(op.x)[first:]))
    return back_to(op, op.GatherGrad(dy, rows, _places(op, indices, batch_dims), axis=0), op.x)


@rule("MaxUnpool")
def max_unpool(op: Context, dy: Value) -> Gradients:
    """Each element gets dy from where it was put: indices count through the whole output, batch included."""
    if op.input(2) is not None:
        raise op.unsupported("an output_shape of its own")
    return op.Gather(op.Reshape(dy, [-1]), op.inputs[1], dims=op.dims(op.x))


@rule("ReverseSequence")
def reverse_sequence(op: Context, dy: Value) -> Gradients:
    """What was reversed, reversed again."""
    axes = {name: op.attr(name) for name in ("batch_axis", "time_axis")}
    return op.ReverseSequence(dy, op.inputs[1], **axes)


@rule("TopK")
def top_k(op: Context, dvalues: Value, _dindices: None = None) -> Gradients:
    return op.ScatterElements(op.zeros(op.x), op.node.outputs[1], dvalues, axis=_axis(op))


@rule("OneHot")
def one_hot(op: Context, dy: Value) -> Gradients:
    """The two values get the sum of dy over what is off and over what is on."""
    indices, depth, _ = op.inputs
    sums = []
    for pair in ([1, 0], [0, 1]):
        chosen = op.OneHot(indices, depth, op.number(pair), axis=op.attr("axis"), dims=op.dims(op.y))
        sums.append(op.Reshape(op.ReduceSum(op.Mul(dy, chosen), keepdims=0), [1]))
    return None, None, op.Concat(*sums, axis=0)


@rule("ScatterElements")
def scatter_elements(op: Context, dy: Value) -> Gradients:
    data, indices, updates = op.present
    axis, reduction = _axis(op), op.attr("reduction")
    if reduction not in ("none", "add"):
        ddata, dupdates = _reduced(op, dy, data, indices, updates, op.y, axis)
        return ddata, None, dupdates
    kept = dy if reduction == "add" else op.ScatterElements(dy, indices, op.zeros(updates), axis=axis)
    return kept, None, op.GatherElements(dy, indices, axis=axis)


@rule("ScatterND")
def scatter_nd(op: Context, dy: Value) -> Gradients:
    data, indices, updates = op.present
    reduction = op.attr("reduction")
    if reduction in ("none", "add"):
        kept = dy if reduction == "add" else op.ScatterND(dy, indices, op.zeros(updates))
        return kept, None, op.GatherND(dy, indices)
    rest = op.dims(data)[int(op.dims(indices)[-1]) :]
    if not is_static(rest):
        raise op.unsupported(f"reduction='{reduction}' and rows of the symbolic sizes {rest}")
    # Rows of elements, so that it is a ScatterElements.
    width = math.prod(rest)
    dy, data, flat, y = (op.Reshape(value, [-1, width]) for value in (dy, data, updates, op.y))
    places = op.Expand(op.Reshape(_places(op, indices, 0), [-1, 1]), [1, width])
    ddata, dupdates = _reduced(op, dy, data, places, flat, y, 0)
    return back_to(op, ddata, op.x), None, back_to(op, dupdates, updates)


def _axis(op: Context) -> int:
    """The attribute, not negative: onnx's ReferenceEvaluator takes no negative axis of a ScatterElements."""
    return int(op.attr("axis")) % len(op.dims(op.x))


def _reduced(
    op: Context, dy: Value, data: Value, indices: Value, updates: Value, y: Value, axis: int
) -> tuple[Value, Value]:
    """Gradients for data and updates of which each place keeps the product, or the largest or smallest.

    As with ReduceProd, zeros count as 1 in the product and apart; what ties for the largest shares dy evenly.
    """

    def scatter(data: Value, updates: Value, reduction: str) -> Value:
        return op.ScatterElements(data, indices, updates, axis=axis, reduction=reduction)

    def picked(value: Value) -> Value:
        return op.GatherElements(value, indices, axis=axis)

    if op.attr("reduction") == "mul":
        zero, new_zero = (op.mask(op.Equal(value, 0.0)) for value in (data, updates))
        factors, new_factors = op.Add(data, zero), op.Add(updates, new_zero)
        product = op.Mul(dy, scatter(factors, new_factors, "mul"))
        zeros = scatter(zero, new_zero, "add")
        return (
            op.Mul(op.Div(product, factors), op.mask(op.Equal(zeros, zero))),
            op.Mul(op.Div(picked(product), new_factors), op.mask(op.Equal(picked(zeros), new_zero))),
        )
    winners, new_winners = op.mask(op.Equal(data, y)), op.mask(op.Equal(updates, picked(y)))
    share = op.Div(dy, scatter(winners, new_winners, "add"))
    return op.Mul(share, winners), op.Mul(picked(share), new_winners)


def _places(op: Context, indices: Value, batch_dims: int) -> Value:
    """Index tuples [..., k] as numbers [...] of rows, where the first axes of the input count as one.

    Those are its batch axes, whose index is the place in `indices`, and the k axes that are indexed.
    """
    lead, depth = len(op.dims(indices)) - 1, int(op.dims(indices)[-1])
    place: Value | None = None
    for axis in range(batch_dims + depth):
        size = op.Squeeze(op.Shape(op.x, start=axis, end=axis + 1))
        if axis < batch_dims:
            index = op.Reshape(op.Range(0, size, 1), [-1] + [1] * (lead - 1 - axis))
        else:
            index = op.Mod(op.Gather(indices, axis - batch_dims, axis=-1), size)  # from the end if negative
        place = index if place is None else op.Add(op.Mul(place, size), index)
    assert place is not None
    return place
