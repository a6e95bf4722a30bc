"""Where a run is while it moves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from cnnc.runtime.checkpoint import Progress
from cnnc.runtime.evaluation import Accumulator


@dataclass
class Position:
    """The counts of a run under way, as `Progress` has them; `total` are the epoch's metrics so far."""

    epoch: int
    batch: int
    step: int
    total: Accumulator
    skipped: int
    in_a_row: int
    rollbacks: int

    @classmethod
    def of(cls, progress: Progress) -> Self:
        """Where a run goes on that got so far."""
        return cls(
            progress.epoch,
            progress.batch,
            progress.step,
            Accumulator(progress.sums),
            progress.skipped,
            progress.in_a_row,
            progress.rollbacks,
        )

    def progress(self, history: str) -> Progress:
        """What a checkpoint records of it, beside the digest of the history."""
        return Progress(
            self.epoch,
            self.batch,
            self.step,
            history,
            dict(self.total.sums),
            self.skipped,
            self.in_a_row,
            self.rollbacks,
        )

    def end_epoch(self) -> None:
        """Go on to the next epoch."""
        self.epoch, self.batch, self.total = self.epoch + 1, 0, Accumulator()
