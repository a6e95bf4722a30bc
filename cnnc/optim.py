"""Optimizers: how gradients move the parameters, as graphs.

The order of one step: gradients are clipped together, what the step needs once is computed (`scalars`), then
each parameter is updated. Weight decay leaves out biases and normalisation unless `decay_all`.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import onnx_ir as ir

from cnnc.checks import real
from cnnc.describe import describe
from cnnc.errors import GraphFileError
from cnnc.ir import Builder
from cnnc.schedules import Constant, Schedule
from cnnc.source import user_line

Update = tuple[ir.Value, tuple[ir.Value, ...]]
"""The next parameter and its next slots."""


class Optimizer(ABC):
    """What every optimizer has: a learning rate, weight decay and clipping."""

    learning_rate: float | Schedule
    weight_decay: float
    decay_all: bool
    clip_norm: float | None

    def __post_init__(self) -> None:
        owner = type(self).__name__
        if not isinstance(self.learning_rate, Schedule):
            real(owner, "learning_rate", self.learning_rate, positive=True)
        real(owner, "weight_decay", self.weight_decay)
        if self.clip_norm is not None:
            real(owner, "clip_norm", self.clip_norm, positive=True)

    @property
    @abstractmethod
    def slots(self) -> tuple[str, ...]:
        """Names of the tensors it keeps for each parameter; all start at zero."""

    @property
    def schedule(self) -> Schedule:
        """The learning rate as a schedule."""
        rate = self.learning_rate
        return rate if isinstance(rate, Schedule) else Constant(rate)

    def describe(self) -> dict[str, Any]:
        """Name and fields, for the manifest."""
        return dict(describe(self))

    def clip(self, builder: Builder, gradients: Sequence[ir.Value]) -> list[ir.Value]:
        """Scale all gradients by min(1, clip_norm / (norm + 1e-6)), where norm is that of all together.

        So do PyTorch's ``clip_grad_norm_`` and Pascanu et al., 2013.
        """
        if self.clip_norm is None or not gradients:
            return list(gradients)
        squares = [
            builder.op("ReduceSum", builder.op("Mul", gradient, gradient), keepdims=0)
            for gradient in gradients
        ]
        total = builder.op("Sum", *squares)
        norm = builder.op("Add", builder.op("Sqrt", total), 1e-6)
        scale = builder.op("Min", builder.op("Div", self.clip_norm, norm), 1.0)
        return [builder.op("Mul", gradient, scale) for gradient in gradients]

    @abstractmethod
    def scalars(self, builder: Builder, step: ir.Value, rate: ir.Value) -> tuple[ir.Value, ...]:
        """What `update` needs once a step, from the finished steps (int64) and the learning rate."""

    @abstractmethod
    def update(
        self,
        builder: Builder,
        parameter: ir.Value,
        gradient: ir.Value,
        slots: Sequence[ir.Value],
        scalars: Sequence[ir.Value],
        decay: bool,
    ) -> Update:
        """Emit the update of one parameter; `decay` tells whether weight decay applies to its kind."""

    def _decay(self, decay: bool) -> float:
        return float(self.weight_decay) if decay or self.decay_all else 0.0


@dataclass(frozen=True)
class SGD(Optimizer):
    """Stochastic gradient descent with momentum, as PyTorch's: v ← momentum · v + g; p ← p - rate · v.

    `nesterov` looks ahead: p ← p - rate · (g + momentum · v); Sutskever et al., 2013. `weight_decay` adds
    weight_decay · p to the gradient.
    """

    learning_rate: float | Schedule = 0.01
    momentum: float = 0.0
    nesterov: bool = False
    weight_decay: float = 0.0
    decay_all: bool = False
    clip_norm: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        real("SGD", "momentum", self.momentum, below=1.0)
        if self.nesterov and not self.momentum:
            raise GraphFileError(
                "SGD: nesterov needs momentum.", where=user_line(), hint="Set momentum, to 0.9 say."
            )

    @property
    def slots(self) -> tuple[str, ...]:
        """``momentum_buffer``, where there is momentum."""
        return ("momentum_buffer",) if self.momentum else ()

    def scalars(self, builder: Builder, step: ir.Value, rate: ir.Value) -> tuple[ir.Value, ...]:
        """The rate."""
        return (rate,)

    def update(
        self,
        builder: Builder,
        parameter: ir.Value,
        gradient: ir.Value,
        slots: Sequence[ir.Value],
        scalars: Sequence[ir.Value],
        decay: bool,
    ) -> Update:
        """One SGDUpdate, or with momentum one MomentumUpdate."""
        amount = self._decay(decay)
        if not slots:
            return builder.op("SGDUpdate", parameter, gradient, *scalars, weight_decay=amount), ()
        after, velocity = builder.op(
            "MomentumUpdate",
            parameter,
            gradient,
            *slots,
            *scalars,
            momentum=self.momentum,
            nesterov=self.nesterov,
            weight_decay=amount,
        )
        return after, (velocity,)


@dataclass(frozen=True)
class Adam(Optimizer):
    """Adam; Kingma and Ba, 2015. `weight_decay` adds weight_decay · p to the gradient, as in PyTorch."""

    decoupled: ClassVar[bool] = False

    learning_rate: float | Schedule = 1e-3
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-7
    weight_decay: float = 0.0
    decay_all: bool = False
    clip_norm: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        owner = type(self).__name__
        real(owner, "beta1", self.beta1, below=1.0)
        real(owner, "beta2", self.beta2, below=1.0)
        real(owner, "epsilon", self.epsilon, positive=True)

    @property
    def slots(self) -> tuple[str, ...]:
        """``exp_avg`` and ``exp_avg_sq``, the moving averages of the gradient and of its square."""
        return ("exp_avg", "exp_avg_sq")

    def scalars(self, builder: Builder, step: ir.Value, rate: ir.Value) -> tuple[ir.Value, ...]:
        """The rate, and the bias corrections 1 - β₁ᵗ and 1 - β₂ᵗ of step t = `step` + 1."""
        assert rate.dtype is not None
        count = builder.op("Cast", builder.op("Add", step, 1), to=int(rate.dtype))
        return rate, _correction(builder, self.beta1, count), _correction(builder, self.beta2, count)

    def update(
        self,
        builder: Builder,
        parameter: ir.Value,
        gradient: ir.Value,
        slots: Sequence[ir.Value],
        scalars: Sequence[ir.Value],
        decay: bool,
    ) -> Update:
        """One AdamUpdate."""
        amount = self._decay(decay)
        after, *moments = builder.op(
            "AdamUpdate",
            parameter,
            gradient,
            *slots,
            *scalars,
            beta1=self.beta1,
            beta2=self.beta2,
            epsilon=self.epsilon,
            weight_decay=0.0 if self.decoupled else amount,
            decoupled_decay=amount if self.decoupled else 0.0,
        )
        return after, tuple(moments)


@dataclass(frozen=True)
class AdamW(Adam):
    """Adam that takes rate · weight_decay · p from the parameter itself; Loshchilov and Hutter, 2019."""

    decoupled: ClassVar[bool] = True

    weight_decay: float = 0.01


def _correction(builder: Builder, beta: float, count: ir.Value) -> ir.Value:
    """1 - βᵗ = 2h / (1 + h) with h = tanh(-t · ln β / 2).

    In float32, 1 - Pow(0.999, t) loses three digits at the first steps; this form loses none. β = 0 stands as
    the smallest positive number, whose powers are 0 too.
    """
    half = builder.op("Tanh", builder.op("Mul", count, -0.5 * math.log(max(beta, 5e-324))))
    correction: ir.Value = builder.op("Div", builder.op("Mul", half, 2.0), builder.op("Add", half, 1.0))
    return correction
