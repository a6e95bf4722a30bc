"""The training loop: one step a batch in a fixed order, an evaluation and a checkpoint every epoch."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NoReturn

from cnnc.bundle import Array
from cnnc.data import Dataset, Prefetcher, Split, batches, epoch_order
from cnnc.errors import DataError, DivergedError, Interrupted, RunError
from cnnc.runtime.checkpoint import BEST, EPOCH, LAST, PREVIOUS, Checkpoint, Progress, encode, load, save
from cnnc.runtime.clock import Clock
from cnnc.runtime.criterion import Criterion
from cnnc.runtime.evaluation import Accumulator, ahead, feeds, run_evaluation
from cnnc.runtime.guard import ROLLBACK_FACTOR, ROLLBACKS, SKIPS, NotFinite, spoiled, spoiled_state
from cnnc.runtime.history import History, Row
from cnnc.runtime.interrupts import StopRequest
from cnnc.runtime.memory import peak_memory
from cnnc.runtime.reporter import Callback, Moment, Start, Summary
from cnnc.runtime.run import Run
from cnnc.runtime.saver import Saver
from cnnc.runtime.session import EvalSession, StepSession

CONFUSION = "confusion_matrix"
Matrix = tuple[str, list[list[int]], Sequence[str]]
"""The file for a confusion matrix, the matrix, and the names of its classes."""
REPORT_SECONDS = 0.1


@dataclass
class Loop:
    """A run under way; `go` takes it from `progress` to its end, once.

    `run` is locked by this process, `step` carries the state that belongs to `progress`, and `notes` are for
    the callback's start. `held_out` are the examples by which the best state is chosen: `test` itself, or a
    validation split of the training data.
    """

    run: Run
    dataset: Dataset
    train: Split
    held_out: Split
    test: Split
    step: StepSession
    evaluation: EvalSession
    progress: Progress
    history: History
    stop: StopRequest
    callback: Callback
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        self._settings, self._manifest = self.run.settings, self.run.bundle.manifest
        self._criterion = Criterion.of(self._settings, self._manifest)
        self._batches = -(-len(self.train) // self._settings.batch_size)
        self._saver, self._clock = Saver(), Clock()
        self._copy: dict[str, Array] | None = None
        self._saved_step = self.progress.step
        self._looks = self.step.checks_cheaply or self._settings.on_nan == "skip"  # at the state, each step
        self._go_to(self.progress)

    def go(self) -> Summary:
        """Train to the end. Raises DivergedError, Interrupted, and RunError where the disk refuses."""
        began = self._next_report = time.perf_counter()
        self._next_save = began + self._settings.save_every
        self._prepare()
        start = self._start()
        self.run.write_environment(start)
        self.callback.on_start(start)
        with self._saver:
            try:
                while not self._ended():
                    try:
                        self._train_epoch()
                        self._end_epoch()
                    except NotFinite as event:
                        self._roll_back(str(event))
                self._saver.wait()
                summary = self._summary(began)
            except (Interrupted, DivergedError) as reason:
                self.callback.on_stop(reason)
                raise
            except DataError as error:
                spoilt = self._spoilt(error)
                self.callback.on_stop(spoilt)
                raise spoilt from error
        self.run.write_summary(summary.record())
        self.callback.on_end(summary)
        return summary

    def _go_to(self, progress: Progress) -> None:
        """Take up the counts of `progress`, and the learning rate that follows from them."""
        self._epoch, self._batch, self._steps = progress.epoch, progress.batch, progress.step
        self._skipped, self._in_a_row = progress.skipped, progress.in_a_row
        self._rollbacks = progress.rollbacks
        self._total = Accumulator(progress.sums)
        self._set_rate()

    def _set_rate(self) -> None:
        """Let the step know the learning rate, after plateaus and rollbacks."""
        reductions = self._criterion.reductions(self.history.rows)
        self._factor = ROLLBACK_FACTOR**self._rollbacks * self._settings.plateau_factor**reductions
        for name, value in self._settings.scalars(self._manifest, self._factor).items():
            self.step.set_scalar(name, value)

    def _ended(self) -> bool:
        """Whether the run has had all its epochs, or waited long enough for a better one."""
        return self._epoch >= self._settings.epochs or self._criterion.met(self.history.rows)

    def _train_epoch(self) -> None:
        """The steps of this epoch that are not done yet."""
        batch_size, now = self._settings.batch_size, time.perf_counter
        order = epoch_order(len(self.train), self._settings.seed or 0, self._epoch)
        stored = batches(self.train, batch_size, order=order, start=self._batch)
        self._clock.begin_epoch()
        with Prefetcher(feeds(stored, self._manifest), ahead(self._manifest, batch_size)) as ready:
            for images, *targets in ready:
                self._batch += 1
                self._steps += 1
                if len(images):  # none where all images of a batch were bad, and are skipped
                    began = now()
                    loss, sums = self.step.step(images, *targets)
                    self._clock.stepped(now() - began, len(images))
                    if what := spoiled(loss, sums) or (spoiled_state(self.step) if self._looks else ""):
                        self._not_finite(f"{what} at step {self._steps}")
                    else:
                        self._in_a_row = 0
                        self._total.add(sums)
                self._saver.check()
                self._check_stop()
                ended = now()
                if ended >= self._next_report or self._batch == self._batches:
                    self._report(ended)
                if ended >= self._next_save and not self._saver.busy:
                    self._check_state()
                    self._save()
        self._clock.end_epoch()

    def _end_epoch(self) -> None:
        """Evaluate, add the epoch's row, and save."""
        if not self._total.sums:
            raise DataError("no image of this epoch could be used.", where=self.train.where)
        total = self._evaluated(self.held_out)
        values = total.values(self._manifest.scalar_metrics)
        part = self._settings.held_out
        for name, value in values.items():
            if not math.isfinite(value):
                raise NotFinite(f"the {part} {name} became {value} after step {self._steps}")
        self._check_state()
        row: Row = {"epoch": self._epoch + 1, "step": self._steps}
        trained = self._total.values(self._manifest.scalar_metrics)
        row |= {f"train_{name}": value for name, value in trained.items()}
        row |= {f"{part}_{name}": value for name, value in values.items()}
        row["lr_scale"] = self._settings.scalars(self._manifest, self._factor)["lr_scale"]
        row["skipped"] = self._skipped
        self._epoch, self._batch, self._total = self._epoch + 1, 0, Accumulator()
        self.history.add(row)
        self._set_rate()
        improved = self._criterion.best(self.history.rows) is row
        times = {"epoch": self._epoch, **self._clock.epoch()}
        self._save(row, times, self._matrices(total), improved)
        self.callback.on_epoch(row | times, improved)
        if not self._ended():
            self._check_stop()

    def _evaluated(self, split: Split) -> Accumulator:
        self.evaluation.use(self.step.values)
        return run_evaluation(
            self.evaluation, split, self._settings.eval_batch_size, between=self._check_stop
        )

    def _matrices(self, total: Accumulator) -> list[Matrix]:
        """The confusion matrix of each output that has one."""
        heads = {f"{head.name}_{CONFUSION}".lstrip("_"): head for head in self._manifest.heads}
        return [
            (f"{name}.csv", total.sums[name][0], head.classes)
            for name, head in heads.items()
            if name in total.sums
        ]

    def _check_state(self) -> None:
        """Raise NotFinite for a state that must not be saved, where not every step was looked at."""
        if not self._looks and (what := spoiled_state(self.step)):
            raise NotFinite(f"{what} after step {self._steps}")

    def _not_finite(self, what: str) -> None:
        """Go on, or not, after a step that came to `what`."""
        if self._settings.on_nan != "skip":
            raise NotFinite(what)
        self.step.undo()
        self._skipped += 1
        self._in_a_row += 1
        if self._in_a_row >= min(SKIPS, self._batches):
            before = f", as at the {self._in_a_row - 1} batches before, which were skipped"
            self._diverged(what + before * (self._in_a_row > 1))
        self.callback.on_note(f"{what}: this batch is skipped.")

    def _roll_back(self, what: str) -> None:
        """Return to the state this epoch began with, at half the rate; or end the run."""
        if self._settings.on_nan != "rollback":
            self._diverged(what)
        if self._rollbacks >= ROLLBACKS:
            self._diverged(f"{what}, after {ROLLBACKS} rollbacks")
        self._saver.wait()
        checkpoint = load(self.run.path / EPOCH, self._manifest)
        self.step.load_state(checkpoint.state)
        self._go_to(replace(checkpoint.progress, rollbacks=self._rollbacks + 1))
        self.callback.on_note(
            f"{what}: back to step {self._steps}, where epoch {self._epoch + 1} began, at "
            f"{self._factor:g} times the learning rate."
        )
        self._save()

    def _diverged(self, what: str) -> NoReturn:
        self._saver.wait()
        rate = (self._settings.lr or 0.0) * self._factor
        raise DivergedError(
            f"{what} (epoch {self._epoch + 1}), at the learning rate {rate:g} before any "
            f"schedule. The last good state, of step {self._saved_step}, is kept in {LAST}.",
            where=str(self.run.path),
            hint="Train with a smaller --lr, clip the gradients in the optimizer, or give --on-nan skip or "
            "rollback.",
        )

    def _spoilt(self, error: DataError) -> DataError:
        """The error about data that turned out bad in the middle of the run, which is saved first."""
        self._bring_to_disk()
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
        self._bring_to_disk()
        raise Interrupted(
            f"stopped at step {self._steps}, in epoch {min(self._epoch + 1, self._settings.epochs)}; "
            "the state is saved.",
            where=str(self.run.path),
            hint=f"Go on with `cnnc train --resume {self.run.path}`.",
        )

    def _bring_to_disk(self) -> None:
        """Save the state as it is now, and wait until it is written."""
        self._saver.wait()
        if self._steps != self._saved_step:
            self._check_state()
            self._save()
            self._saver.wait()

    def _progress(self) -> Progress:
        return Progress(
            self._epoch,
            self._batch,
            self._steps,
            self.history.digest,
            dict(self._total.sums),
            self._skipped,
            self._in_a_row,
            self._rollbacks,
        )

    def _save(
        self,
        row: Row | None = None,
        times: Row | None = None,
        matrices: Sequence[Matrix] = (),
        improved: bool = False,
    ) -> None:
        """Begin to write a checkpoint of the state as it is now, and what an epoch that ended leaves.

        What is written, and in which order, is such that a process that is killed in between goes on from the
        checkpoint before, or from this one.
        """
        self._saver.wait()
        self._copy = self.step.state(self._copy)
        checkpoint, run = Checkpoint(self._copy, self._progress()), self.run
        begins_epoch = self._batch == 0 and self._settings.on_nan == "rollback"

        def write() -> None:
            for matrix in matrices:
                run.write_matrix(*matrix)
            if row is not None and times is not None:
                self.history.write(row, times)
            data = encode(checkpoint)
            save(run.path / LAST, data, keep=run.path / PREVIOUS)
            if improved:
                save(run.path / BEST, data)
            if begins_epoch:
                save(run.path / EPOCH, data)

        self._saver.start(write)
        self._saved_step = self._steps
        self._next_save = time.perf_counter() + self._settings.save_every

    def _prepare(self) -> None:
        """Make sure that a run that may roll back has a state to go back to."""
        if self._settings.on_nan != "rollback":
            return
        path = self.run.path / EPOCH
        try:
            if load(path, self._manifest).progress.epoch == self._epoch:
                return
        except RunError:  # missing, of a run that could not roll back before, or damaged
            pass
        save(path, Checkpoint(self.step.state(), self._progress()))

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
        rate = self._clock.rate(now)
        epochs_left = self._settings.epochs - self._epoch - self._batch / self._batches
        moment = Moment(
            epoch=self._epoch + 1,
            epochs=self._settings.epochs,
            batch=self._batch,
            batches=self._batches,
            step=self._steps,
            values=self._total.values(self._manifest.scalar_metrics) if self._total.sums else {},
            images_per_second=rate,
            seconds_left=epochs_left * len(self.train) / max(rate, 1e-9),
        )
        self.callback.on_step(moment)

    def _summary(self, began: float) -> Summary:
        rows, metrics = self.history.rows, self._manifest.scalar_metrics
        last, best = rows[-1], self._criterion.best(rows)
        values = {
            part: {metric.name: row[f"{part}_{metric.name}"] for metric in metrics}
            for part, row in (("train", last), (self._settings.held_out, last))
        }
        if self.held_out is self.test:
            of_best = {metric.name: best[f"test_{metric.name}"] for metric in metrics}
        else:
            values["test"] = of_best = self._evaluated(self.test).values(metrics)
            if best is not last:
                self.evaluation.use(load(self.run.path / BEST, self._manifest).state)
                size = self._settings.eval_batch_size
                of_best = run_evaluation(self.evaluation, self.test, size, self._check_stop).values(metrics)
        return Summary(
            run=self.run.path,
            epochs=self._epoch,
            steps=self._steps,
            train=values["train"],
            test=values["test"],
            best_epoch=int(best["epoch"]),
            best=of_best,
            step_ms_median=self._clock.step_ms_median,
            images_per_second=self._clock.images_per_second,
            seconds=time.perf_counter() - began,
            peak_memory_mb=peak_memory() / 1e6,
            device=self.step.provider.device,
            skipped_images=len(self.dataset.problems),
            validation=values.get("validation", {}),
            stopped_early=self._epoch < self._settings.epochs,
            skipped=self._skipped,
            rollbacks=self._rollbacks,
        )
