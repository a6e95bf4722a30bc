"""Elementwise operators, in terms of the output where that keeps a fusion or a buffer."""

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


@rule("Sum")
def sum_(op: Context, dy: Value) -> Gradients:
    return [dy for _ in op.inputs]


@rule("Neg")
def neg(op: Context, dy: Value) -> Gradients:
    return op.Neg(dy)


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


@rule("Relu")
def relu(op: Context, dy: Value) -> Gradients:
    return op.ReluGrad(dy, op.y)


@rule("LeakyRelu")
def leaky_relu(op: Context, dy: Value) -> Gradients:
    return op.Mul(dy, op.Where(op.Greater(op.x, 0.0), 1.0, op.CastLike(op.attr("alpha"), op.x)))


@rule("Sigmoid")
def sigmoid(op: Context, dy: Value) -> Gradients:
    return op.Mul(dy, op.Mul(op.y, op.Sub(1.0, op.y)))


@rule("Tanh")
def tanh(op: Context, dy: Value) -> Gradients:
    return op.Mul(dy, op.Sub(1.0, op.Mul(op.y, op.y)))


@rule("Softplus")
def softplus(op: Context, dy: Value) -> Gradients:
    return op.Mul(dy, op.Sigmoid(op.x))


@rule("Abs")
def abs_(op: Context, dy: Value) -> Gradients:
    return op.Mul(dy, op.Sign(op.x))


@rule("Cast", "CastLike")
def cast(op: Context, dy: Value) -> Gradients:
    return op.CastLike(dy, op.x) if op.type(op.x).dtype.is_floating_point() else None


@rule("DropoutMask")
def dropout_mask(op: Context, dmask: Value) -> Gradients:
    """The mask is random numbers: nothing flows through it."""
    return None


@rule("Softmax")
def softmax(op: Context, dy: Value) -> Gradients:
    """dx = y · (dy - Σ dy·y)."""
    axis = op.attr("axis")
    weighted = op.Mul(dy, op.y)
    return op.Sub(weighted, op.Mul(op.y, op.ReduceSum(weighted, [axis], keepdims=1)))


@rule("LogSoftmax")
def log_softmax(op: Context, dy: Value) -> Gradients:
    """dx = dy - softmax(x) · Σ dy."""
    return op.Sub(dy, op.Mul(op.Exp(op.y), op.ReduceSum(dy, [op.attr("axis")], keepdims=1)))
