"""Activations: layers of their own, and what other layers' `activation` can name."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from cnnc.checks import one_of, real
from cnnc.errors import ShapeError
from cnnc.nn.layer import Layer
from cnnc.nn.trace import Call, Value, shown


@dataclass(frozen=True, eq=False)
class Activation(Layer):
    """An elementwise function, or softmax; keeps the shape.

    `kind` is what a layer's `activation` calls it; `operator` is the operator of ONNX that computes it, where
    one without attributes does.
    """

    kind: ClassVar[str]
    operator: ClassVar[str]

    def __call__(self, x: Value) -> Value:
        """Apply it to a value of any shape."""
        return self.emit(self.call(x), x, "")

    def emit(self, call: Call, x: Value, name: str) -> Value:
        """Emit its nodes within `call`, the last one under `name`."""
        return call.op(self.operator, x, name=name)


@dataclass(frozen=True, eq=False)
class ReLU(Activation):
    """max(x, 0)."""

    kind, operator = "relu", "Relu"


@dataclass(frozen=True, eq=False)
class LeakyReLU(Activation):
    """x where it is positive, else slope · x; Maas et al., 2013. Raises GraphFileError for a bad slope."""

    kind = "leaky_relu"
    slope: float = 0.01

    def check(self) -> None:
        """The slope is a number in [0, 1)."""
        real("LeakyReLU", "slope", self.slope, below=1.0)

    def emit(self, call: Call, x: Value, name: str) -> Value:
        """One LeakyRelu."""
        return call.op("LeakyRelu", x, name=name, alpha=self.slope)


@dataclass(frozen=True, eq=False)
class Sigmoid(Activation):
    """1 / (1 + exp(-x))."""

    kind, operator = "sigmoid", "Sigmoid"


@dataclass(frozen=True, eq=False)
class Tanh(Activation):
    """Hyperbolic tangent."""

    kind, operator = "tanh", "Tanh"


@dataclass(frozen=True, eq=False)
class GELU(Activation):
    """x · Φ(x) = x · (1 + erf(x / √2)) / 2, exact; Hendrycks and Gimpel, 2016."""

    kind = "gelu"

    def emit(self, call: Call, x: Value, name: str) -> Value:
        """Five nodes, in the form that runtimes fuse: opset 18 has no Gelu."""
        inner = f"{name}/" if name else ""
        erf = call.op("Erf", call.op("Div", x, math.sqrt(2.0), name=f"{inner}div"), name=f"{inner}erf")
        twice = call.op("Mul", x, call.op("Add", erf, 1.0, name=f"{inner}add"), name=f"{inner}mul")
        return call.op("Mul", twice, 0.5, name=name)


@dataclass(frozen=True, eq=False)
class Softmax(Activation):
    """exp(x) / Σ exp(x) along `axis`, by default the channels or classes.

    A network that ends in logits needs none: `SoftmaxCrossEntropy` holds it in training, and the exported
    model applies it.
    """

    kind = "softmax"
    axis: int = 1

    def emit(self, call: Call, x: Value, name: str) -> Value:
        """One Softmax."""
        rank = len(x.shape)
        if not isinstance(self.axis, int) or not -rank <= self.axis < rank or self.axis % rank == 0:
            raise call.error(
                f"axis {self.axis!r} is none that softmax can go along in an input {shown(x.shape)}.",
                f"Use an axis from 1 to {rank - 1}.",
            )
        return call.op("Softmax", x, name=name, axis=self.axis)


ACTIVATIONS: dict[str, type[Activation]] = {
    activation.kind: activation for activation in (ReLU, LeakyReLU, Sigmoid, Tanh, GELU, Softmax)
}
"""What a layer's `activation` can name."""


def check_activation(layer: Layer, name: str | None) -> None:
    """Raise ShapeError unless there is an activation of this name."""
    if name is not None:
        one_of(type(layer).__name__, "activation", name, ACTIVATIONS, ShapeError)


def activate(call: Call, x: Value, name: str | None) -> Value:
    """Apply the activation of this name (None: none) within a layer's call, as the node ``layer/name``."""
    return x if name is None else ACTIVATIONS[name]().emit(call, x, name)
