"""Adam and the optimizers that share its two moving averages."""

from __future__ import annotations

import math
from dataclasses import KW_ONLY, dataclass
from typing import Any

import onnx_ir as ir

from cnnc.checks import real
from cnnc.ir import Builder
from cnnc.optim.optimizer import Optimizer, Slot
from cnnc.schedules import Schedule


@dataclass(frozen=True)
class Adam(Optimizer):
    """Adam; Kingma and Ba, 2015: p ← p - rate · m̂ / (√v̂ + ε), with the bias of m and v corrected.

    `weight_decay` adds weight_decay · p to the gradient, as in PyTorch. ε is 1e-7 by default, as in Keras
    (PyTorch: 1e-8). Raises GraphFileError for a field out of range.
    """

    update_op = "AdamUpdate"

    learning_rate: float | Schedule = 1e-3
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-7

    def __post_init__(self) -> None:
        super().__post_init__()
        owner = type(self).__name__
        real(owner, "beta1", self.beta1, below=1.0)
        real(owner, "beta2", self.beta2, below=1.0)
        real(owner, "epsilon", self.epsilon, positive=True)

    def slots(self, shape: tuple[int, ...]) -> tuple[Slot, ...]:
        """``exp_avg`` and ``exp_avg_sq``, the moving averages of the gradient and of its square."""
        return Slot("exp_avg", shape), Slot("exp_avg_sq", shape)

    def scalars(self, builder: Builder, step: ir.Value, rate: ir.Value) -> tuple[ir.Value, ...]:
        """The rate, and the bias corrections 1 - β₁ᵗ and 1 - β₂ᵗ of step t = `step` + 1."""
        count = step_number(builder, step, rate)
        return rate, bias_correction(builder, self.beta1, count), bias_correction(builder, self.beta2, count)


@dataclass(frozen=True)
class AdamW(Adam):
    """Adam that takes rate · weight_decay · p from the parameter itself; Loshchilov and Hutter, 2019.

    Weight decay is 0.01 by default, as in PyTorch. Raises GraphFileError for a field out of range.
    """

    decoupled = True

    _: KW_ONLY
    weight_decay: float = 0.01


@dataclass(frozen=True)
class NAdam(Adam):
    """Adam with Nesterov's momentum; Dozat, 2016.

    As PyTorch's: its momentum grows with the step t as μₜ = β₁ · (1 - 0.96^(t · `momentum_decay`) / 2).
    Raises GraphFileError for a field out of range.
    """

    update_op = "NAdamUpdate"

    learning_rate: float | Schedule = 2e-3
    momentum_decay: float = 0.004

    def __post_init__(self) -> None:
        super().__post_init__()
        real("NAdam", "momentum_decay", self.momentum_decay)

    def slots(self, shape: tuple[int, ...]) -> tuple[Slot, ...]:
        """Adam's, and the scalar ``mu_product``, the product of all μ so far."""
        return (*super().slots(shape), Slot("mu_product", (), 1.0))

    def scalars(self, builder: Builder, step: ir.Value, rate: ir.Value) -> tuple[ir.Value, ...]:
        """The rate, the second bias correction, μ of this step and of the next one."""
        count = step_number(builder, step, rate)
        momenta = (self._momentum(builder, t) for t in (count, builder.op("Add", count, 1.0)))
        return rate, bias_correction(builder, self.beta2, count), *momenta

    def _momentum(self, builder: Builder, count: ir.Value) -> ir.Value:
        power = builder.op("Exp", builder.op("Mul", count, self.momentum_decay * math.log(0.96)))
        mu: ir.Value = builder.op("Sub", self.beta1, builder.op("Mul", power, 0.5 * self.beta1))
        return mu


@dataclass(frozen=True)
class LAMB(Adam):
    """Adam for large batches: each parameter's step is scaled to the parameter's own norm; You et al., 2020.

    As in the authors' implementation, what weight decay leaves out is not scaled either. Raises
    GraphFileError for a field out of range.
    """

    update_op = "LambUpdate"
    decoupled = True

    epsilon: float = 1e-6
    _: KW_ONLY
    weight_decay: float = 0.01

    def attributes(self, decay: bool) -> dict[str, Any]:
        """`adapt` says whether the step is scaled."""
        return {**super().attributes(decay), "adapt": decay or self.decay_all}


def step_number(builder: Builder, step: ir.Value, rate: ir.Value) -> ir.Value:
    """The number t of the step under way, from 1, in the rate's element type."""
    assert rate.dtype is not None
    count: ir.Value = builder.op("Cast", builder.op("Add", step, 1), to=int(rate.dtype))
    return count


def bias_correction(builder: Builder, beta: float, count: ir.Value) -> ir.Value:
    """1 - βᵗ = 2h / (1 + h) with h = tanh(-t · ln β / 2).

    In float32, 1 - Pow(0.999, t) loses three digits at the first steps; this form loses none. β = 0 stands as
    the smallest positive number, whose powers are 0 too.
    """
    half = builder.op("Tanh", builder.op("Mul", count, -0.5 * math.log(max(beta, 5e-324))))
    correction: ir.Value = builder.op("Div", builder.op("Mul", half, 2.0), builder.op("Add", half, 1.0))
    return correction
