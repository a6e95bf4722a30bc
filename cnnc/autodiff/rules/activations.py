"""Activations, in terms of the output where that keeps a fusion or a buffer. At a kink: the left slope."""

from __future__ import annotations

from cnnc.autodiff.rule import Context, Gradients, Value, rule


@rule("Relu")
def relu(op: Context, dy: Value) -> Gradients:
    return op.ReluGrad(dy, op.y)


@rule("LeakyRelu")
def leaky_relu(op: Context, dy: Value) -> Gradients:
    alpha = op.attr("alpha")
    if 0.0 <= alpha <= 1.0:  # the output is positive where the input is; Where is three passes inside
        return op.Mul(dy, op.Max(op.mask(op.Greater(op.y, 0.0)), alpha))
    return op.Mul(dy, op.Where(op.Greater(op.x, 0.0), 1.0, op.number(alpha)))


@rule("PRelu")
def prelu(op: Context, dy: Value) -> Gradients:
    x, slope = op.inputs
    return op.Mul(dy, op.Where(op.Greater(x, 0.0), 1.0, slope)), op.Mul(dy, op.Min(x, 0.0))


@rule("ThresholdedRelu")
def thresholded_relu(op: Context, dy: Value) -> Gradients:
    return op.Mul(dy, op.mask(op.Greater(op.x, op.attr("alpha"))))


@rule("Shrink")
def shrink(op: Context, dy: Value) -> Gradients:
    return op.Mul(dy, op.mask(op.Greater(op.Abs(op.x), op.attr("lambd"))))


@rule("Elu")
def elu(op: Context, dy: Value) -> Gradients:
    """d α(eˣ - 1)/dx = y + α for negative x."""
    alpha = op.attr("alpha")
    if alpha == 1.0:
        return op.Mul(dy, op.Add(op.Min(op.y, 0.0), 1.0))
    return op.Mul(dy, op.Where(op.Greater(op.x, 0.0), 1.0, op.Add(op.y, alpha)))


@rule("Selu")
def selu(op: Context, dy: Value) -> Gradients:
    """d γα(eˣ - 1)/dx = y + γα for negative x."""
    gamma = op.attr("gamma")
    negative = op.Add(op.y, gamma * op.attr("alpha"))
    return op.Mul(dy, op.Where(op.Greater(op.x, 0.0), op.number(gamma), negative))


@rule("Sigmoid")
def sigmoid(op: Context, dy: Value) -> Gradients:
    return op.Mul(dy, op.Mul(op.y, op.Sub(1.0, op.y)))


@rule("HardSigmoid")
def hard_sigmoid(op: Context, dy: Value) -> Gradients:
    inside = op.And(op.Greater(op.y, 0.0), op.Less(op.y, 1.0))
    return op.Mul(dy, op.Mul(op.mask(inside), op.attr("alpha")))


@rule("HardSwish")
def hard_swish(op: Context, dy: Value) -> Gradients:
    """y = x·min(max(x/6 + 1/2, 0), 1): the slope is x/3 + 1/2 for -3 < x < 3, else 0 or 1."""
    inside = op.Add(op.Div(op.x, 3.0), 0.5)
    outside = op.mask(op.Greater(op.x, 0.0))
    return op.Mul(dy, op.Where(op.Less(op.Abs(op.x), 3.0), inside, outside))


@rule("Tanh")
def tanh(op: Context, dy: Value) -> Gradients:
    return op.Mul(dy, op.Sub(1.0, op.Mul(op.y, op.y)))


@rule("Softplus")
def softplus(op: Context, dy: Value) -> Gradients:
    return op.Mul(dy, op.Sigmoid(op.x))


@rule("Softsign")
def softsign(op: Context, dy: Value) -> Gradients:
    """d x/(1 + |x|) / dx = 1/(1 + |x|)²."""
    scale = op.Add(op.Abs(op.x), 1.0)
    return op.Div(dy, op.Mul(scale, scale))


@rule("Mish")
def mish(op: Context, dy: Value) -> Gradients:
    """y = x·t with t = tanh(softplus(x)): the slope is t + x·(1 - t²)·sigmoid(x)."""
    t = op.Tanh(op.Softplus(op.x))
    slope = op.Mul(op.Sub(1.0, op.Mul(t, t)), op.Sigmoid(op.x))
    return op.Mul(dy, op.Add(t, op.Mul(op.x, slope)))


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
