"""What a training run tells the one who watches it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cnnc.errors import CnncError
from cnnc.runtime.history import Row


@dataclass(frozen=True)
class Start:
    """A run begins or goes on. `step` is the number of steps done before; `notes` are worth a line each."""

    run: Path
    provider: str
    threads: int
    epochs: int
    steps_per_epoch: int
    batch_size: int
    step: int
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Moment:
    """In the middle of epoch `epoch` (from 1), after `batch` of its `batches`.

    `values` are the training loss and metrics over the epoch so far; `seconds_left` is for the whole run,
    without its evaluations.
    """

    epoch: int
    epochs: int
    batch: int
    batches: int
    step: int
    values: dict[str, float]
    images_per_second: float
    seconds_left: float


@dataclass(frozen=True)
class Summary:
    """What a run came to. `test` are the metrics of the last state on the test split, `best` those of the
    best one, reached in epoch `best_epoch`, and `validation` those of the last state on the validation split,
    where there is one; then `best` is empty where the best state was lost. Of `steps`, so many were `skipped`
    for their NaN or infinity. Times are of this process, and None where it made no step; `peak_memory_mb` is
    its largest resident size, in 10⁶ bytes, and `tuned` says whether its step was one tuned for the machine,
    which rounds otherwise than the portable one.
    """

    run: Path
    epochs: int
    steps: int
    train: dict[str, float]
    test: dict[str, float]
    best_epoch: int
    best: dict[str, float]
    step_ms_median: float | None
    images_per_second: float | None
    seconds: float
    peak_memory_mb: float
    device: str
    tuned: bool
    skipped_images: int = 0
    validation: dict[str, float] = field(default_factory=dict)
    stopped_early: bool = False
    skipped: int = 0
    rollbacks: int = 0

    def record(self) -> dict[str, Any]:
        """The summary as one flat JSON object: ``test_accuracy``, ``best_test_accuracy``, ``run``, …"""
        record: dict[str, Any] = {}
        for name, value in vars(self).items():
            if not isinstance(value, dict):
                record[name] = str(value) if isinstance(value, Path) else value
                continue
            prefix = "best_test" if name == "best" else name
            record |= {f"{prefix}_{metric}": number for metric, number in value.items()}
        return record


class Callback:
    """What a run calls while it trains; override what you want to hear. Each does nothing by itself.

    ::

        class Loss(Callback):
            def on_epoch(self, row: Row, improved: bool) -> None:
                print(row["epoch"], row["test_loss"])

        train(bundle, load("digits"), Settings(epochs=3), callbacks=[Loss()])

    The calls come between two steps, on the thread that trains: a slow callback slows the run. An exception
    leaves `train` as it is; the run can go on from its last checkpoint.
    """

    def on_tune(self, words: str) -> None:
        """Before a new run starts: what the tuner is about to do, or has found, now or before."""

    def on_start(self, start: Start) -> None:
        """Before the first step of a new run, or of one that goes on."""

    def on_step(self, moment: Moment) -> None:
        """After some of the steps: a few times a second, and at the end of each epoch's."""

    def on_epoch(self, row: Row, improved: bool) -> None:
        """After an epoch's evaluation: its row of metrics.csv, and whether it is the best so far."""

    def on_note(self, note: str) -> None:
        """Where a person should know something: a batch is skipped, the run returns to a state."""

    def on_end(self, summary: Summary) -> None:
        """After the last epoch; summary.json is written."""

    def on_stop(self, reason: CnncError) -> None:
        """In place of `on_end` where the run was interrupted or diverged, once its state is saved."""


class Callbacks(Callback):
    """Several callbacks as one, called in their order."""

    def __init__(self, callbacks: Iterable[Callback]) -> None:
        self._callbacks = tuple(callbacks)

    def on_tune(self, words: str) -> None:
        """Tell each."""
        for callback in self._callbacks:
            callback.on_tune(words)

    def on_start(self, start: Start) -> None:
        """Tell each."""
        for callback in self._callbacks:
            callback.on_start(start)

    def on_step(self, moment: Moment) -> None:
        """Tell each."""
        for callback in self._callbacks:
            callback.on_step(moment)

    def on_epoch(self, row: Row, improved: bool) -> None:
        """Tell each."""
        for callback in self._callbacks:
            callback.on_epoch(row, improved)

    def on_note(self, note: str) -> None:
        """Tell each."""
        for callback in self._callbacks:
            callback.on_note(note)

    def on_end(self, summary: Summary) -> None:
        """Tell each."""
        for callback in self._callbacks:
            callback.on_end(summary)

    def on_stop(self, reason: CnncError) -> None:
        """Tell each."""
        for callback in self._callbacks:
            callback.on_stop(reason)
