"""Stochastic gradient descent."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import onnx_ir as ir

from cnnc.checks import real
from cnnc.errors import GraphFileError
from cnnc.ir import Builder
from cnnc.optim.group import Group
from cnnc.optim.optimizer import Optimizer, Slot, Update
from cnnc.schedules import Schedule
from cnnc.source import user_line


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
    groups: Sequence[Group] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        real("SGD", "momentum", self.momentum, below=1.0)
        if self.nesterov and not self.momentum:
            raise GraphFileError(
                "SGD: nesterov needs momentum.", where=user_line(), hint="Set momentum, to 0.9 say."
            )

    def slots(self, shape: tuple[int, ...]) -> tuple[Slot, ...]:
        """``momentum_buffer``, where there is momentum."""
        return (Slot("momentum_buffer", shape),) if self.momentum else ()

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
