"""What a run leaves on disk while it trains: its checkpoints, and what each epoch adds."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from cnnc.bundle import Array
from cnnc.errors import RunError
from cnnc.runtime.checkpoint import BEST, EPOCH, LAST, PREVIOUS, Checkpoint, Progress, encode, load, save
from cnnc.runtime.history import History, Row
from cnnc.runtime.matrices import Matrix
from cnnc.runtime.run import Run
from cnnc.runtime.saver import Saver
from cnnc.runtime.session import StepSession


@dataclass(frozen=True)
class EpochEnd:
    """What an epoch that ended leaves; `improved` says that it is the best so far."""

    row: Row
    times: Row
    matrices: Sequence[Matrix]
    improved: bool


class Keeper:
    """Writes the state that `step` carries into `run`, on a thread of its own.

    `saved_step` is the step of the newest checkpoint. Use it in a ``with`` statement, as a `Saver`.
    """

    def __init__(self, run: Run, step: StepSession, history: History, saved_step: int) -> None:
        self.saved_step = saved_step
        self._run, self._step, self._history = run, step, history
        self._rolls_back = run.settings.on_nan == "rollback"
        self._saver = Saver()
        self._copy: dict[str, Array] | None = None
        self._wait_for_next()

    def save(self, progress: Progress, ended: EpochEnd | None = None) -> None:
        """Begin to write a checkpoint of the state as it is now, and what an epoch that ended leaves.

        What is written, and in which order, is such that a process that is killed in between goes on from the
        checkpoint before, or from this one.
        """
        self._saver.wait()
        self._copy = self._step.state(self._copy)
        checkpoint, run = Checkpoint(self._copy, progress), self._run
        begins_epoch = progress.batch == 0 and self._rolls_back

        def write() -> None:
            if ended is not None:
                run.write_matrices(ended.matrices)
                self._history.write(ended.row, ended.times)
            data = encode(checkpoint)
            save(run.path / LAST, data, keep=run.path / PREVIOUS)
            if ended is not None and ended.improved:
                save(run.path / BEST, data)
            if begins_epoch:
                save(run.path / EPOCH, data)

        self._saver.start(write)
        self.saved_step = progress.step
        self._wait_for_next()

    def due(self, now: float) -> bool:
        """Whether it is time to save in the middle of an epoch, and nothing is being written."""
        return now >= self._next and not self._saver.busy

    def check(self) -> None:
        """Raise RunError where what was being written could not be."""
        self._saver.check()

    def wait(self) -> None:
        """Wait until everything is written. Raises RunError."""
        self._saver.wait()

    def begin(self, progress: Progress) -> None:
        """Make sure that a run that may roll back has a state to go back to. Raises RunError."""
        self._wait_for_next()
        if not self._rolls_back:
            return
        path = self._run.path / EPOCH
        try:
            if load(path, self._run.bundle.manifest).progress.epoch == progress.epoch:
                return
        except RunError:  # missing, of a run that could not roll back before, or damaged
            pass
        save(path, Checkpoint(self._step.state(), progress))

    def epoch_start(self) -> Checkpoint:
        """The state the epoch under way began with, of a run that may roll back. Raises RunError."""
        self._saver.wait()
        return load(self._run.path / EPOCH, self._run.bundle.manifest)

    def _wait_for_next(self) -> None:
        self._next = time.perf_counter() + self._run.settings.save_every

    def __enter__(self) -> Self:
        self._saver.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._saver.__exit__(kind, error, trace)
