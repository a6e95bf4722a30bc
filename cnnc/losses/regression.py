"""Losses of values: the output itself is the prediction."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass

import onnx_ir as ir

from cnnc.bundle import TargetSpec
from cnnc.checks import real
from cnnc.ir import Builder, TensorType
from cnnc.losses.loss import Loss, mean_of_elements, with_elements


class _Regression(Loss):
    """A function of output - target, the mean over an example's elements."""

    activation = "identity"

    def target(self, output: TensorType) -> TargetSpec:
        """Floats of the output's shape."""
        return TargetSpec("target", "value", output.dtype.numpy().name, with_elements(self, output))

    def elements(
        self, builder: Builder, output: ir.Value, target: ir.Value
    ) -> tuple[ir.Value, ir.Value | None]:
        """The function of the difference."""
        return mean_of_elements(builder, self._of(builder, builder.op("Sub", output, target))), None

    @abstractmethod
    def _of(self, builder: Builder, difference: ir.Value) -> ir.Value:
        """Emit the loss of each element."""


@dataclass(frozen=True)
class MeanSquaredError(_Regression):
    """(output - target)², the mean over an example's elements."""

    def _of(self, builder: Builder, difference: ir.Value) -> ir.Value:
        square: ir.Value = builder.op("Mul", difference, difference)
        return square


@dataclass(frozen=True)
class MeanAbsoluteError(_Regression):
    """|output - target|, the mean over an example's elements: PyTorch's L1Loss."""

    def _of(self, builder: Builder, difference: ir.Value) -> ir.Value:
        distance: ir.Value = builder.op("Abs", difference)
        return distance


@dataclass(frozen=True)
class Huber(_Regression):
    """d² / 2 for a difference |d| ≤ `delta`, delta · (|d| - delta / 2) beyond; Huber, 1964.

    The mean over an example's elements, as PyTorch's HuberLoss. Raises GraphFileError for a field out of
    range.
    """

    delta: float = 1.0

    def __post_init__(self) -> None:
        real("Huber", "delta", self.delta, positive=True)

    def _of(self, builder: Builder, difference: ir.Value) -> ir.Value:
        """With e = max(|d| - delta, 0) as (|d| - e)² / 2 + delta · e, without a branch."""
        distance = builder.op("Abs", difference)
        excess = builder.op("Relu", builder.op("Sub", distance, self.delta))
        inner = builder.op("Sub", distance, excess)
        square = builder.op("Mul", builder.op("Mul", inner, inner), 0.5)
        loss: ir.Value = builder.op("Add", square, builder.op("Mul", excess, self.delta))
        return loss
