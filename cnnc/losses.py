"""Losses: what the network's output is compared with, as a graph.

A loss is the mean over the examples of a batch. It is emitted as a sum and a number of examples, which add up
over batches of any size.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import onnx_ir as ir

from cnnc.bundle import TargetSpec
from cnnc.checks import real
from cnnc.describe import describe
from cnnc.errors import ShapeError
from cnnc.ir import Builder, TensorType, dims_of


class Loss(ABC):
    """The mean over examples of a difference between the output and a target."""

    activation: ClassVar[Literal["softmax", "sigmoid", "identity"]]
    """What makes a prediction of the output: the loss includes it, the exported model applies it."""

    @abstractmethod
    def target(self, output: TensorType) -> TargetSpec:
        """The graph input that holds the targets of an output. Raises ShapeError where it can't have any."""

    @abstractmethod
    def emit(self, builder: Builder, output: ir.Value, target: ir.Value) -> tuple[ir.Value, ir.Value]:
        """Emit the sum of the examples' losses (a scalar) and the number of examples (an int64 scalar)."""

    def activate(self, builder: Builder, output: ir.Value) -> ir.Value:
        """Emit what makes a prediction of the output: `activation`."""
        if self.activation == "softmax":
            output = builder.op("Softmax", output, axis=1)
        elif self.activation == "sigmoid":
            output = builder.op("Sigmoid", output)
        return output

    def describe(self) -> dict[str, Any]:
        """Name and fields, for the manifest."""
        return dict(describe(self))


@dataclass(frozen=True)
class SoftmaxCrossEntropy(Loss):
    """-Σ q · log softmax(logits), for logits [N, classes] and integer labels [N] in [0, classes).

    q = (1 - s) · one-hot + s / classes, with the label smoothing s in [0, 1); Szegedy et al., 2016.
    """

    activation = "softmax"
    label_smoothing: float = 0.0

    def __post_init__(self) -> None:
        real("SoftmaxCrossEntropy", "label_smoothing", self.label_smoothing, below=1.0)

    def target(self, output: TensorType) -> TargetSpec:
        """Integer labels [N]."""
        if output.rank != 2 or output.dims[1] == 1:
            raise ShapeError(
                f"SoftmaxCrossEntropy takes logits [N, classes] of two or more classes; the network's output "
                f"is {output}.",
                hint=(
                    "End it with nn.Dense(classes), or use losses.BinaryCrossEntropy()."
                    if output.rank == 2
                    else "End it with nn.Flatten() and nn.Dense(classes)."
                ),
            )
        return TargetSpec("label", "class", "int64", output.dims[:1])

    def emit(self, builder: Builder, output: ir.Value, target: ir.Value) -> tuple[ir.Value, ir.Value]:
        """One gradient op, and the sum of its losses."""
        losses, _ = builder.op("SoftmaxCrossEntropy", output, target, label_smoothing=self.label_smoothing)
        return _total(builder, losses)


@dataclass(frozen=True)
class BinaryCrossEntropy(Loss):
    """-t · log σ(x) - (1 - t) · log(1 - σ(x)), for logits x and targets t in [0, 1] of the same shape.

    The mean over an example's elements. Stable for logits of any size.
    """

    activation = "sigmoid"

    def target(self, output: TensorType) -> TargetSpec:
        """Floats in [0, 1] of the output's shape."""
        return TargetSpec("target", "binary", output.dtype.numpy().name, _with_elements(self, output))

    def emit(self, builder: Builder, output: ir.Value, target: ir.Value) -> tuple[ir.Value, ir.Value]:
        """As t · softplus(-x) + (1 - t) · softplus(x), which neither overflows nor cancels."""
        positive = builder.op("Mul", target, builder.op("Softplus", builder.op("Neg", output)))
        negative = builder.op("Mul", builder.op("Sub", 1.0, target), builder.op("Softplus", output))
        return _total(builder, _mean_of_elements(builder, builder.op("Add", positive, negative)))


@dataclass(frozen=True)
class MeanSquaredError(Loss):
    """(output - target)², the mean over an example's elements."""

    activation = "identity"

    def target(self, output: TensorType) -> TargetSpec:
        """Floats of the output's shape."""
        return TargetSpec("target", "value", output.dtype.numpy().name, _with_elements(self, output))

    def emit(self, builder: Builder, output: ir.Value, target: ir.Value) -> tuple[ir.Value, ir.Value]:
        """The difference, times itself."""
        difference = builder.op("Sub", output, target)
        return _total(builder, _mean_of_elements(builder, builder.op("Mul", difference, difference)))


def _with_elements(loss: Loss, output: TensorType) -> tuple[int | str, ...]:
    if output.rank < 2:
        raise ShapeError(
            f"{type(loss).__name__} takes an output [N, …]; the network's output is {output}.",
            hint="End it with nn.Dense(1) for one value an example.",
        )
    return output.dims


def _mean_of_elements(builder: Builder, values: ir.Value) -> ir.Value:
    """[N, …] → [N]."""
    mean: ir.Value = builder.op("ReduceMean", values, list(range(1, len(dims_of(values)))), keepdims=0)
    return mean


def _total(builder: Builder, losses: ir.Value) -> tuple[ir.Value, ir.Value]:
    return builder.op("ReduceSum", losses, keepdims=0), builder.op("Size", losses)
