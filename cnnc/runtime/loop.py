"""The training loop: one step a batch in a fixed order, an evaluation and a checkpoint every epoch."""

from __future__ import annotations

import math
import resource
import statistics
import sys
import time
from array import array
from dataclasses import dataclass
from typing import NoReturn

import numpy as np

from cnnc.bundle import Array, Manifest
from cnnc.data import Dataset, Prefetcher, batches, epoch_order
from cnnc.errors import DataError, DivergedError, Interrupted
from cnnc.runtime.checkpoint import BEST, LAST, PREVIOUS, Checkpoint, Progress, save
from cnnc.runtime.evaluation import Accumulator, ahead, feeds, run_evaluation
from cnnc.runtime.history import History, Row
from cnnc.runtime.interrupts import StopRequest
from cnnc.runtime.reporter import Callback, Moment, Start, Summary
from cnnc.runtime.run import Run
from cnnc.runtime.session import EvalSession, StepSession, Sums

CONFUSION = "confusion_matrix"
REPORT_SECONDS = 0.1
SAVE_SECONDS = 300.0
"""An epoch that takes longer is saved in its middle too."""


@dataclass
class Loop:
    """A run under way; `go` takes it from `progress` to its last epoch, once.

    `run` is locked by this process, `step` carries the state that belongs to `progress`, and `notes` are for
    the callback's start.
    """

    run: Run
    dataset: Dataset
    step: StepSession
    evaluation: EvalSession
    progress: Progress
    history: History
    stop: StopRequest
    callback: Callback
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        self._settings, self._manifest = self.run.settings, self.run.bundle.manifest
        self._epoch, self._batch, self._steps = self.progress.epoch, self.progress.batch, self.progress.step
        self._total = Accumulator(self.progress.sums)
        self._batches = -(-len(self.dataset.train) // self._settings.batch_size)
        self._saved_step = self._steps
        self._step_seconds = array("d")
        self._images, self._train_seconds = 0, 0.0

    def go(self) -> Summary:
        """Train to the end. Raises DivergedError, Interrupted, and RunError where the disk refuses."""
        began = self._next_report = time.perf_counter()
        self._next_save = began + SAVE_SECONDS
        self.callback.on_start(self._start())
        try:
            while self._epoch < self._settings.epochs:
                self._train_epoch()
                self._end_epoch()
        except (Interrupted, DivergedError) as reason:
            self.callback.on_stop(reason)
            raise
        except DataError as error:
            raise self._spoilt(error) from error
        summary = self._summary(time.perf_counter() - began)
        self.run.write_summary(summary.record())
        self.callback.on_end(summary)
        return summary

    def _train_epoch(self) -> None:
        """The steps of this epoch that are not done yet."""
        split, batch_size, now = self.dataset.train, self._settings.batch_size, time.perf_counter
        order = epoch_order(len(split), self._settings.seed or 0, self._epoch)
        stored = batches(split, batch_size, order=order, start=self._batch)
        self._began, self._epoch_images = now(), 0
        with Prefetcher(feeds(stored, self._manifest), ahead(self._manifest, batch_size)) as ready:
            for images, labels in ready:
                if not len(images):  # all of the batch was bad, and is skipped
                    self._batch += 1
                    continue
                began = now()
                loss, sums = self.step.step(images, labels)
                ended = now()
                self._step_seconds.append(ended - began)
                self._check_finite(loss, sums)
                self._total.add(sums)
                self._batch += 1
                self._steps += 1
                self._epoch_images += len(images)
                self._check_stop()
                if ended >= self._next_report or self._batch == self._batches:
                    self._report(ended)
                if ended >= self._next_save:
                    self._save(self._checkpoint())
        self._epoch_seconds = now() - self._began
        self._images += self._epoch_images
        self._train_seconds += self._epoch_seconds

    def _end_epoch(self) -> None:
        """Evaluate, write the epoch's row, and save."""
        self.evaluation.use(self.step.values)
        total = run_evaluation(
            self.evaluation, self.dataset.test, self._settings.eval_batch_size, between=self._check_stop
        )
        test = total.values(self._manifest.scalar_metrics)
        for name, value in test.items():
            if not math.isfinite(value):
                self._diverged(f"the test {name} became {value} after step {self._steps}")
        row: Row = {"epoch": self._epoch + 1, "step": self._steps}
        trained = self._total.values(self._manifest.scalar_metrics)
        row |= {f"train_{name}": value for name, value in trained.items()}
        row |= {f"test_{name}": value for name, value in test.items()}
        row["lr_scale"] = self._settings.scalars(self._manifest)["lr_scale"]
        row["seconds"] = round(time.perf_counter() - self._began, 3)
        row["images_per_second"] = round(self._epoch_images / self._epoch_seconds, 1)
        state = self._finite_state()
        if matrix := total.sums.get(CONFUSION):
            self.run.write_matrix(matrix[0])
        self.history.append(row)
        self._epoch, self._batch, self._total = self._epoch + 1, 0, Accumulator()
        checkpoint = Checkpoint(state, self._progress())
        if improved := self._best_row() is row:
            save(self.run.path / BEST, checkpoint)
        self._save(checkpoint)
        self.callback.on_epoch(row, improved)
        if self._epoch < self._settings.epochs:
            self._check_stop()

    def _check_finite(self, loss: float, sums: Sums) -> None:
        values = {"loss": loss} | {
            f"sum of {name}": total for name, (total, _) in sums.items() if isinstance(total, float)
        }
        if all(map(math.isfinite, values.values())):
            return
        name, value = next(item for item in values.items() if not math.isfinite(item[1]))
        self._diverged(f"the {name} became {value} at step {self._steps + 1}")

    def _diverged(self, what: str) -> NoReturn:
        raise DivergedError(
            f"{what} (epoch {self._epoch + 1}), at the learning rate {self._settings.lr:g} before any "
            f"schedule. The last good state, of step {self._saved_step}, is kept in {LAST}.",
            where=str(self.run.path),
            hint="Train with a smaller --lr, or clip the gradients in the optimizer.",
        )

    def _spoilt(self, error: DataError) -> DataError:
        """The error about data that turned out bad in the middle of the run, which is saved first."""
        if self._steps != self._saved_step:
            self._save(self._checkpoint())
        return DataError(
            error.what,
            where=error.where,
            hint=f"{error.hint} The state of step {self._steps} is saved: go on with "
            f"`cnnc train --resume {self.run.path}`; --on-bad-image skip leaves bad images out.".strip(),
        )

    def _check_stop(self) -> None:
        """Save and raise Interrupted where the user asked to stop."""
        if not self.stop.asked:
            return
        if self._steps != self._saved_step:
            self._save(self._checkpoint())
        raise Interrupted(
            f"stopped at step {self._steps}, in epoch {min(self._epoch + 1, self._settings.epochs)}; "
            "the state is saved.",
            where=str(self.run.path),
            hint=f"Go on with `cnnc train --resume {self.run.path}`.",
        )

    def _progress(self) -> Progress:
        return Progress(self._epoch, self._batch, self._steps, self.history.digest, dict(self._total.sums))

    def _checkpoint(self) -> Checkpoint:
        return Checkpoint(self._finite_state(), self._progress())

    def _finite_state(self) -> dict[str, Array]:
        """A copy of the state as it is now. Raises DivergedError where it isn't finite."""
        state = self.step.state()
        for name, values in state.items():
            if values.dtype.kind == "f" and not np.isfinite(values).all():
                self._diverged(f"the state '{name}' has values that are not finite after step {self._steps}")
        return state

    def _save(self, checkpoint: Checkpoint) -> None:
        save(self.run.path / LAST, checkpoint, keep=self.run.path / PREVIOUS)
        self._saved_step = self._steps
        self._next_save = time.perf_counter() + SAVE_SECONDS

    def _best_row(self) -> Row:
        """The first epoch's row whose test metric is the best."""
        metric = next(metric for metric in self._manifest.metrics if metric.name == self._settings.best)
        choice = max if metric.better == "higher" else min
        return choice(self.history.rows, key=lambda row: row[f"test_{metric.name}"])

    def _start(self) -> Start:
        notes = self.notes
        if on_cpu := self.step.on_cpu:
            some = ", ".join(on_cpu[:8]) + (" …" if len(on_cpu) > 8 else "")
            notes += (f"{len(on_cpu)} nodes of the step run on the CPU: {some}.",)
        return Start(
            run=self.run.path,
            provider=self.step.provider.words,
            threads=self._settings.threads or 1,
            epochs=self._settings.epochs,
            steps_per_epoch=self._batches,
            batch_size=self._settings.batch_size,
            step=self._steps,
            notes=notes,
        )

    def _report(self, now: float) -> None:
        self._next_report = now + REPORT_SECONDS
        rate = self._epoch_images / (now - self._began)
        epochs_left = self._settings.epochs - self._epoch - self._batch / self._batches
        moment = Moment(
            epoch=self._epoch + 1,
            epochs=self._settings.epochs,
            batch=self._batch,
            batches=self._batches,
            step=self._steps,
            values=self._total.values(self._manifest.scalar_metrics),
            images_per_second=rate,
            seconds_left=epochs_left * len(self.dataset.train) / rate,
        )
        self.callback.on_step(moment)

    def _summary(self, seconds: float) -> Summary:
        last, best = self.history.rows[-1], self._best_row()
        names = [metric.name for metric in self._manifest.scalar_metrics]
        return Summary(
            run=self.run.path,
            epochs=self._epoch,
            steps=self._steps,
            train={name: last[f"train_{name}"] for name in names},
            test={name: last[f"test_{name}"] for name in names},
            best_epoch=int(best["epoch"]),
            best={name: best[f"test_{name}"] for name in names},
            step_ms_median=statistics.median(self._step_seconds) * 1e3 if self._step_seconds else None,
            images_per_second=self._images / self._train_seconds if self._images else None,
            seconds=seconds,
            peak_memory_mb=peak_memory() / 1e6,
            device=self.step.provider.device,
            skipped_images=len(self.dataset.problems),
        )


def columns(manifest: Manifest) -> list[str]:
    """The columns of metrics.csv, in the order in which the loop writes a row."""
    names = [metric.name for metric in manifest.scalar_metrics]
    measured = [f"{part}_{name}" for part in ("train", "test") for name in names]
    return ["epoch", "step", *measured, "lr_scale", "seconds", "images_per_second"]


def peak_memory() -> int:
    """The largest resident size this process has had, in bytes."""
    size = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return size if sys.platform == "darwin" else size * 1024
