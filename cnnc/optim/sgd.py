"""Stochastic gradient descent."""

from __future__ import annotations

from dataclasses import dataclass

from cnnc.checks import real
from cnnc.errors import GraphFileError
from cnnc.optim.optimizer import Optimizer, Slot
from cnnc.schedules import Schedule
from cnnc.source import user_line


@dataclass(frozen=True)
class SGD(Optimizer):
    """Stochastic gradient descent with momentum, as PyTorch's: v ← momentum · v + g; p ← p - rate · v.

    `nesterov` looks ahead: p ← p - rate · (g + momentum · v); Sutskever et al., 2013. `weight_decay` adds
    weight_decay · p to the gradient. Raises GraphFileError for a field out of range, or for nesterov without
    momentum.
    """

    learning_rate: float | Schedule = 0.01
    momentum: float = 0.0
    nesterov: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        real("SGD", "momentum", self.momentum, below=1.0)
        if self.nesterov and not self.momentum:
            raise GraphFileError(
                "SGD: nesterov needs momentum.", where=user_line(), hint="Set momentum, to 0.9 say."
            )

    @property
    def update_op(self) -> str:
        """SGDUpdate, or with momentum MomentumUpdate."""
        return "MomentumUpdate" if self.momentum else "SGDUpdate"

    def slots(self, shape: tuple[int, ...]) -> tuple[Slot, ...]:
        """``momentum_buffer``, where there is momentum."""
        return (Slot("momentum_buffer", shape),) if self.momentum else ()
