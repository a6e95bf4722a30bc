"""Lion, an optimizer that keeps one average and steps by its sign."""

from __future__ import annotations

from dataclasses import dataclass

from cnnc.checks import real
from cnnc.optim.optimizer import Optimizer, Slot
from cnnc.schedules import Schedule


@dataclass(frozen=True)
class Lion(Optimizer):
    """p ← p - rate · (sign(β₁m + (1-β₁)g) + weight_decay · p); m ← β₂m + (1-β₂)g; Chen et al., 2023.

    Every element moves by the whole rate, so the rate is a third to a tenth of Adam's, and weight decay as
    many times larger. Raises GraphFileError for a field out of range.
    """

    update_op = "LionUpdate"
    decoupled = True

    learning_rate: float | Schedule = 1e-4
    beta1: float = 0.9
    beta2: float = 0.99

    def __post_init__(self) -> None:
        super().__post_init__()
        real("Lion", "beta1", self.beta1, below=1.0)
        real("Lion", "beta2", self.beta2, below=1.0)

    def slots(self, shape: tuple[int, ...]) -> tuple[Slot, ...]:
        """``exp_avg``, the moving average of the gradient."""
        return (Slot("exp_avg", shape),)
