"""Arithmetic and elementary functions, in terms of the output where that keeps a fusion or a buffer."""

from __future__ import annotations

import math

from cnnc.autodiff.rule import Context, Gradients, Value, rule


@rule("Identity")
def identity(op: Context, dy: Value) -> Gradients:
    return dy


@rule("Add")
def add(op: Context, dy: Value) -> Gradients:
    return dy, dy


@rule("Sub")
def sub(op: Context, dy: Value) -> Gradients:
    return dy, op.Neg(dy)


@rule("Mul")
def mul(op: Context, dy: Value) -> Gradients:
    a, b = op.inputs
    return op.Mul(dy, b), op.Mul(dy, a)


@rule("Div")
def div(op: Context, dy: Value) -> Gradients:
    b = op.inputs[1]
    da = op.Div(dy, b)
    return da, op.Neg(op.Mul(da, op.y))


@rule("Mod")
def mod(op: Context, dy: Value) -> Gradients:
    """y = a - b·trunc(a/b), so that db = -dy·trunc(a/b) = -dy·(a - y)/b."""
    a, b = op.inputs
    return dy, op.Neg(op.Mul(dy, op.Div(op.Sub(a, op.y), b)))


@rule("Pow")
def pow_(op: Context, dy: Value) -> Gradients:
    """d xᵇ/dx = b·xᵇ⁻¹, also for x = 0 = b; d xᵇ/db = xᵇ·ln x, and 0 where x is not positive."""
    x, b = op.present
    known = op.known(1)
    if known is not None and known.size == 1:
        return _power(op, dy, float(known.item()))
    if op.type(b).dtype != op.type(x).dtype:
        b = op.CastLike(b, x)
    not_zero = op.Add(b, op.mask(op.Equal(b, 0.0)))
    slope = op.Mul(b, op.Pow(x, op.Sub(not_zero, 1.0)))
    if not op.needed[1]:
        return op.Mul(dy, slope)
    positive = op.Greater(x, 0.0)
    logarithm = op.Log(op.Where(positive, x, 1.0))
    return op.Mul(dy, slope), op.Mul(dy, op.Where(positive, op.Mul(op.y, logarithm), 0.0))


def _power(op: Context, dy: Value, exponent: float) -> Gradients:
    """dy·b·xᵇ⁻¹ for a number b."""
    if exponent == 0.0:
        return None
    if exponent == 1.0:
        return dy
    base = op.x if exponent == 2.0 else op.Pow(op.x, op.number(exponent - 1.0))
    return op.Mul(dy, op.Mul(base, exponent))


@rule("Sum")
def sum_(op: Context, dy: Value) -> Gradients:
    return [dy for _ in op.inputs]


@rule("Mean")
def mean(op: Context, dy: Value) -> Gradients:
    share = op.Div(dy, float(len(op.inputs)))
    return [share for _ in op.inputs]


@rule("Max", "Min")
def max_min(op: Context, dy: Value) -> Gradients:
    """Inputs that tie share dy evenly."""
    if len(op.inputs) == 1:
        return dy
    winners = [op.mask(op.Equal(value, op.y)) for value in op.inputs]
    share = op.Div(dy, op.Sum(*winners))
    return [op.Mul(share, winner) for winner in winners]


@rule("Clip")
def clip(op: Context, dy: Value) -> Gradients:
    """What lies between the bounds gets dy; of the rest, bounds included, the bound that it was set to.

    In terms of the output, like the gradient of ReLU, so that Conv and Clip can fuse.
    """
    low, high = op.input(1), op.input(2)
    above = [op.Greater(op.y, low)] if low is not None else []
    below = [op.Less(op.y, high)] if high is not None else []
    if not above and not below:
        return dy
    dx = op.Mul(dy, op.mask(op.And(*above, *below) if above and below else (above or below)[0]))
    if not any(op.needed[1:]):
        return dx
    rest = op.Sub(dy, dx)
    dhigh = op.Mul(rest, op.mask(op.Not(below[0]))) if below else None
    dlow = op.Sub(rest, dhigh) if below else rest
    return (dx, dlow, dhigh)[: len(op.inputs)]


@rule("Neg")
def neg(op: Context, dy: Value) -> Gradients:
    return op.Neg(dy)


@rule("Abs")
def abs_(op: Context, dy: Value) -> Gradients:
    return op.Mul(dy, op.Sign(op.x))


@rule("Reciprocal")
def reciprocal(op: Context, dy: Value) -> Gradients:
    return op.Neg(op.Mul(dy, op.Mul(op.y, op.y)))


@rule("Exp")
def exp(op: Context, dy: Value) -> Gradients:
    return op.Mul(dy, op.y)


@rule("Log")
def log(op: Context, dy: Value) -> Gradients:
    return op.Div(dy, op.x)


@rule("Sqrt")
def sqrt(op: Context, dy: Value) -> Gradients:
    return op.Div(op.Mul(dy, 0.5), op.y)


@rule("Erf")
def erf(op: Context, dy: Value) -> Gradients:
    """d erf(x)/dx = 2/√π · exp(-x²)."""
    return op.Mul(dy, op.Mul(op.Exp(op.Neg(op.Mul(op.x, op.x))), 2.0 / math.sqrt(math.pi)))


@rule("Where")
def where(op: Context, dy: Value) -> Gradients:
    """A product with the mask: ONNX Runtime's Where is three passes inside."""
    da = op.Mul(dy, op.mask(op.x))
    return None, da, op.Sub(dy, da)


@rule("Range")
def range_(op: Context, dy: Value) -> Gradients:
    """Element i is start + i·delta; where to stop only says how many there are."""
    count = op.Squeeze(op.Shape(op.y))
    places = op.CastLike(op.Range(0, count, 1), dy)
    return op.ReduceSum(dy, keepdims=0), None, op.ReduceSum(op.Mul(dy, places), keepdims=0)


@rule("Cast", "CastLike")
def cast(op: Context, dy: Value) -> Gradients:
    return op.CastLike(dy, op.x) if op.type(op.x).dtype.is_floating_point() else None
