"""Optimizers that divide each element's gradient by what it has been: RMSprop, Adagrad, Adadelta."""

from __future__ import annotations

from dataclasses import dataclass

from cnnc.checks import real
from cnnc.optim.optimizer import Optimizer, Slot
from cnnc.schedules import Schedule


@dataclass(frozen=True)
class RMSprop(Optimizer):
    """v ← ρv + (1-ρ)g²; p ← p - rate · g / (√v + ε); Tieleman and Hinton, 2012, lecture 6.5.

    As PyTorch's: `momentum` b ← momentum · b + g / (√v + ε) gathers the steps, `centered` divides by the
    standard deviation √(v - m²) instead (Graves, 2013), `weight_decay` adds weight_decay · p to g. Raises
    GraphFileError for a field out of range.
    """

    learning_rate: float | Schedule = 1e-3
    rho: float = 0.9
    momentum: float = 0.0
    centered: bool = False
    epsilon: float = 1e-7

    def __post_init__(self) -> None:
        super().__post_init__()
        real("RMSprop", "rho", self.rho, below=1.0)
        real("RMSprop", "momentum", self.momentum, below=1.0)
        real("RMSprop", "epsilon", self.epsilon, positive=True)

    @property
    def update_op(self) -> str:
        """RMSpropUpdate, or where it is centered CenteredRMSpropUpdate."""
        return "CenteredRMSpropUpdate" if self.centered else "RMSpropUpdate"

    def slots(self, shape: tuple[int, ...]) -> tuple[Slot, ...]:
        """``square_avg``, ``grad_avg`` where it is centered, ``momentum_buffer`` where there is momentum."""
        names = ["square_avg"]
        names += ["grad_avg"] if self.centered else []
        names += ["momentum_buffer"] if self.momentum else []
        return tuple(Slot(name, shape) for name in names)


@dataclass(frozen=True)
class Adagrad(Optimizer):
    """v ← v + g²; p ← p - rate · g / (√v + ε); Duchi et al., 2011.

    v begins at `initial`. `weight_decay` adds weight_decay · p to g. Raises GraphFileError for a field out of
    range.
    """

    update_op = "AdagradUpdate"

    learning_rate: float | Schedule = 0.01
    initial: float = 0.0
    epsilon: float = 1e-7

    def __post_init__(self) -> None:
        super().__post_init__()
        real("Adagrad", "initial", self.initial)
        real("Adagrad", "epsilon", self.epsilon, positive=True)

    def slots(self, shape: tuple[int, ...]) -> tuple[Slot, ...]:
        """``sum``, the sum of squared gradients."""
        return (Slot("sum", shape, float(self.initial)),)


@dataclass(frozen=True)
class Adadelta(Optimizer):
    """v ← ρv + (1-ρ)g²; d = g · √(u + ε) / √(v + ε); u ← ρu + (1-ρ)d²; p ← p - rate · d; Zeiler, 2012.

    `weight_decay` adds weight_decay · p to g. Raises GraphFileError for a field out of range.
    """

    update_op = "AdadeltaUpdate"

    learning_rate: float | Schedule = 1.0
    rho: float = 0.9
    epsilon: float = 1e-6

    def __post_init__(self) -> None:
        super().__post_init__()
        real("Adadelta", "rho", self.rho, below=1.0)
        real("Adadelta", "epsilon", self.epsilon, positive=True)

    def slots(self, shape: tuple[int, ...]) -> tuple[Slot, ...]:
        """``square_avg`` and ``acc_delta``, the moving averages of squared gradients and squared steps."""
        return Slot("square_avg", shape), Slot("acc_delta", shape)
