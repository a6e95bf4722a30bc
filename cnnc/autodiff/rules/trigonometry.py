"""Circular and hyperbolic functions, in terms of the output where that is shorter and loses nothing."""

from __future__ import annotations

from cnnc.autodiff.rule import Context, Gradients, Value, rule


@rule("Sin")
def sin(op: Context, dy: Value) -> Gradients:
    return op.Mul(dy, op.Cos(op.x))


@rule("Cos")
def cos(op: Context, dy: Value) -> Gradients:
    return op.Neg(op.Mul(dy, op.Sin(op.x)))


@rule("Tan")
def tan(op: Context, dy: Value) -> Gradients:
    return op.Mul(dy, op.Add(op.Mul(op.y, op.y), 1.0))


@rule("Asin")
def asin(op: Context, dy: Value) -> Gradients:
    return op.Div(dy, op.Sqrt(_one_minus_square(op)))


@rule("Acos")
def acos(op: Context, dy: Value) -> Gradients:
    return op.Neg(op.Div(dy, op.Sqrt(_one_minus_square(op))))


@rule("Atan")
def atan(op: Context, dy: Value) -> Gradients:
    return op.Div(dy, op.Add(op.Mul(op.x, op.x), 1.0))


@rule("Sinh")
def sinh(op: Context, dy: Value) -> Gradients:
    return op.Mul(dy, op.Cosh(op.x))


@rule("Cosh")
def cosh(op: Context, dy: Value) -> Gradients:
    return op.Mul(dy, op.Sinh(op.x))


@rule("Asinh")
def asinh(op: Context, dy: Value) -> Gradients:
    return op.Div(dy, op.Sqrt(op.Add(op.Mul(op.x, op.x), 1.0)))


@rule("Acosh")
def acosh(op: Context, dy: Value) -> Gradients:
    """dx = dy / √((x - 1)(x + 1)): x² - 1 would cancel near 1."""
    return op.Div(dy, op.Sqrt(op.Mul(op.Sub(op.x, 1.0), op.Add(op.x, 1.0))))


@rule("Atanh")
def atanh(op: Context, dy: Value) -> Gradients:
    return op.Div(dy, _one_minus_square(op))


def _one_minus_square(op: Context) -> Value:
    """(1 - x)(1 + x): 1 - x² would cancel near ±1."""
    product: Value = op.Mul(op.Sub(1.0, op.x), op.Add(op.x, 1.0))
    return product
