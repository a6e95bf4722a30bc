"""What decides by the metrics of finished epochs: the best one, when to stop, and when to reduce the rate.

All are functions of the rows of metrics.csv alone, so that a resumed run decides as one that never stopped.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from cnnc.bundle import Manifest
from cnnc.runtime.history import Row
from cnnc.runtime.settings import Settings


@dataclass(frozen=True)
class Criterion:
    """A column of metrics.csv, and whether more of it is better.

    An epoch that gains no more than `min_delta` on the best before it is one that waits, as in Keras. After
    `patience` of them the run ends, after `plateau` of them the learning rate is reduced; None is never.
    """

    column: str
    better: Literal["higher", "lower"]
    min_delta: float = 0.0
    patience: int | None = None
    plateau: int | None = None

    @classmethod
    def of(cls, settings: Settings, manifest: Manifest) -> Criterion:
        """That of resolved `settings`."""
        metric = next(metric for metric in manifest.metrics if metric.name == settings.best)
        column = f"{settings.held_out}_{metric.name}"
        return cls(column, metric.better, settings.min_delta, settings.patience, settings.plateau)

    def best(self, rows: Sequence[Row]) -> Row:
        """The row of the best epoch, the first of equals."""
        choose = max if self.better == "higher" else min
        return choose(rows, key=lambda row: row[self.column])

    def met(self, rows: Sequence[Row]) -> bool:
        """Whether the run has waited for a better epoch as long as it may."""
        return self.patience is not None and self._fold(rows, None)[0] >= self.patience

    def reductions(self, rows: Sequence[Row]) -> int:
        """How often the learning rate was reduced."""
        return self._fold(rows, self.plateau)[1]

    def _fold(self, rows: Sequence[Row], patience: int | None) -> tuple[int, int]:
        """The epochs waited since the metric got better or the last reduction, and the reductions."""
        sign = 1 if self.better == "higher" else -1
        best: float | None = None
        waited = reductions = 0
        for value in (sign * row[self.column] for row in rows):
            if best is None or value - self.min_delta > best:
                best, waited = value, 0
                continue
            waited += 1
            if waited == patience:
                waited, reductions = 0, reductions + 1
        return waited, reductions
