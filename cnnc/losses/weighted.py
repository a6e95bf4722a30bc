"""A loss among several: its weight, and which target it compares with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from cnnc.checks import kind_of, real
from cnnc.errors import GraphFileError
from cnnc.losses.loss import Loss
from cnnc.source import user_line


@dataclass(frozen=True)
class Weighted:
    """The `loss` of one of several outputs, which adds `weight` times itself to the loss of the step.

    ``0.3 * loss`` is the same. `target` names the output whose target this one is compared with too, as
    auxiliary classifiers are; None: it has a target of its own. Raises GraphFileError.
    """

    loss: Loss
    weight: float = 1.0
    target: str | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.loss, Loss):
            raise GraphFileError(
                f"Weighted: loss must be a loss, such as losses.SoftmaxCrossEntropy(), not {self.loss!r}.",
                where=user_line(),
            )
        object.__setattr__(self, "weight", real("Weighted", "weight", self.weight, positive=True))
        if self.target is not None and not isinstance(self.target, str):
            raise GraphFileError(
                f"Weighted: target must be the name of an output, not {kind_of(self.target)}.",
                where=user_line(),
            )

    def __rmul__(self, factor: Any) -> Weighted:
        return Weighted(
            self.loss, real("Weighted", "weight", factor, positive=True) * self.weight, self.target
        )

    __mul__ = __rmul__
