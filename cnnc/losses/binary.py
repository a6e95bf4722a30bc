"""Losses of yes and no: each element of the output is a logit of its own."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import onnx_ir as ir

from cnnc.bundle import TargetSpec
from cnnc.checks import real
from cnnc.ir import Builder, TensorType
from cnnc.losses.loss import (
    Loss,
    by_channel,
    constant_by_channel,
    mean_of_elements,
    numbers,
    with_elements,
)


class _Binary(Loss):
    """t · yes(x) + (1 - t) · no(x), the mean over an example's elements."""

    activation = "sigmoid"

    def target(self, output: TensorType) -> TargetSpec:
        """Floats in [0, 1] of the output's shape."""
        return TargetSpec("target", "binary", output.dtype.numpy().name, with_elements(self, output))

    def elements(
        self, builder: Builder, output: ir.Value, target: ir.Value
    ) -> tuple[ir.Value, ir.Value | None]:
        """Both sides by softplus, which neither overflows nor cancels."""
        # -log σ(x) and -log(1 - σ(x))
        of_yes = builder.op("Softplus", builder.op("Neg", output))
        of_no = builder.op("Softplus", output)
        yes, no = self._sides(builder, of_yes, of_no)
        losses = builder.op(
            "Add", builder.op("Mul", target, yes), builder.op("Mul", builder.op("Sub", 1.0, target), no)
        )
        return mean_of_elements(builder, losses), None

    @abstractmethod
    def _sides(self, builder: Builder, of_yes: ir.Value, of_no: ir.Value) -> tuple[ir.Value, ir.Value]:
        """Emit the loss of each element where its target is yes, and where it is no."""


@dataclass(frozen=True)
class BinaryCrossEntropy(_Binary):
    """-w · t · log σ(x) - (1 - t) · log(1 - σ(x)), for logits x and targets t in [0, 1] of the same shape.

    The mean over an example's elements. Stable for logits of any size. `pos_weight` w is a number, or one for
    each channel (axis 1), as in PyTorch's BCEWithLogitsLoss. Raises GraphFileError for a field out of range.
    """

    pos_weight: float | Sequence[float] = 1.0

    def __post_init__(self) -> None:
        owner, weight = "BinaryCrossEntropy", self.pos_weight
        if isinstance(weight, int | float):
            real(owner, "pos_weight", weight)
        else:
            object.__setattr__(self, "pos_weight", numbers(owner, "pos_weight", weight))

    def target(self, output: TensorType) -> TargetSpec:
        """Floats in [0, 1] of the output's shape."""
        spec = super().target(output)
        if not isinstance(self.pos_weight, int | float):
            by_channel("BinaryCrossEntropy", "pos_weight", self.pos_weight, output)
        return spec

    def _sides(self, builder: Builder, of_yes: ir.Value, of_no: ir.Value) -> tuple[ir.Value, ir.Value]:
        weight = self.pos_weight
        if weight == 1.0:
            return of_yes, of_no
        if not isinstance(weight, int | float):
            return builder.op("Mul", of_yes, constant_by_channel(builder, weight, of_yes)), of_no
        return builder.op("Mul", of_yes, float(weight)), of_no


@dataclass(frozen=True)
class BinaryFocal(_Binary):
    """-α · t · (1 - p)^γ · log p - (1 - α) · (1 - t) · p^γ · log(1 - p) with p = σ(x); Lin et al., 2017.

    The mean over an example's elements. For targets of 0 and 1 torchvision's sigmoid_focal_loss. Raises
    GraphFileError for a field out of range.
    """

    alpha: float = 0.25
    gamma: float = 2.0

    def __post_init__(self) -> None:
        real("BinaryFocal", "alpha", self.alpha, below=1.0, positive=True)
        real("BinaryFocal", "gamma", self.gamma)

    def _sides(self, builder: Builder, of_yes: ir.Value, of_no: ir.Value) -> tuple[ir.Value, ir.Value]:
        """(1 - p)^γ is exp(-γ · softplus(x)), whose gradient is finite for any γ."""

        def side(loss: ir.Value, other: ir.Value, share: float) -> ir.Value:
            if self.gamma:
                loss = builder.op("Mul", loss, builder.op("Exp", builder.op("Mul", other, -self.gamma)))
            scaled: ir.Value = builder.op("Mul", loss, share)
            return scaled

        return side(of_yes, of_no, self.alpha), side(of_no, of_yes, 1.0 - self.alpha)
