"""The training loop: one step a batch in a fixed order, an evaluation and a checkpoint every epoch."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace
from typing import NoReturn

from cnnc.bundle import averaged
from cnnc.data import Dataset, Prefetcher, Split, batches, epoch_order
from cnnc.errors import DataError, DivergedError, Interrupted, RunError
from cnnc.runtime.checkpoint import BEST, Progress, load
from cnnc.runtime.clock import Clock
from cnnc.runtime.criterion import Criterion
from cnnc.runtime.endings import diverged, interrupted, spoilt
from cnnc.runtime.evaluation import Accumulator, ahead, batches_of, feeds, run_evaluation
from cnnc.runtime.guard import ROLLBACK_FACTOR, ROLLBACKS, SKIPS, NotFinite, spoiled, spoiled_state
from cnnc.runtime.history import History, Row
from cnnc.runtime.interrupts import StopRequest
from cnnc.runtime.keeper import EpochEnd, Keeper
from cnnc.runtime.matrices import matrices_of
from cnnc.runtime.memory import peak_memory
from cnnc.runtime.position import Position
from cnnc.runtime.reporter import Callback, Moment, Start, Summary
from cnnc.runtime.run import Run
from cnnc.runtime.session import EvalSession, State, StepSession

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
        self._keeper = Keeper(self.run, self.step, self.history, self.progress.step)
        self._clock = Clock()
        self._looks = self.step.checks_cheaply or self._settings.on_nan == "skip"  # at the state, each step
        self._go_to(self.progress)

    def go(self) -> Summary:
        """Train to the end. Raises DivergedError, Interrupted, and RunError where the disk refuses."""
        began = self._next_report = time.perf_counter()
        self._keeper.begin(self._progress())
        start = self._start()
        self.run.write_environment(start)
        self.callback.on_start(start)
        with self._keeper:
            try:
                while not self._ended():
                    try:
                        self._train_epoch()
                        self._end_epoch()
                    except NotFinite as event:
                        self._roll_back(str(event))
                self._keeper.wait()
                summary = self._summary(began)
            except (Interrupted, DivergedError) as reason:
                self.callback.on_stop(reason)
                raise
            except DataError as error:
                bad_data = self._spoilt(error)
                self.callback.on_stop(bad_data)
                raise bad_data from error
        self.run.write_summary(summary.record())
        self.callback.on_end(summary)
        return summary

    def _go_to(self, progress: Progress) -> None:
        """Take up the counts of `progress`, and the learning rate that follows from them."""
        self._at = Position.of(progress)
        self._set_rate()

    def _set_rate(self) -> None:
        """Let the step know the learning rate, after plateaus and rollbacks."""
        reductions = self._criterion.reductions(self.history.rows)
        self._factor = ROLLBACK_FACTOR**self._at.rollbacks * self._settings.plateau_factor**reductions
        for name, value in self._settings.scalars(self._manifest, self._factor).items():
            self.step.set_scalar(name, value)

    def _ended(self) -> bool:
        """Whether the run has had all its epochs, or waited long enough for a better one."""
        return self._at.epoch >= self._settings.epochs or self._criterion.met(self.history.rows)

    def _train_epoch(self) -> None:
        """The steps of this epoch that are not done yet."""
        batch_size, now = self._settings.batch_size, time.perf_counter
        order = epoch_order(len(self.train), self._settings.seed or 0, self._at.epoch)
        stored = batches(self.train, batch_size, order=order, start=self._at.batch)
        self._clock.begin_epoch()
        with Prefetcher(feeds(stored, self._manifest), ahead(self._manifest, batch_size)) as ready:
            for images, *targets in ready:
                self._at.batch += 1
                self._at.step += 1
                if len(images):  # none where all images of a batch were bad, and are skipped
                    began = now()
                    loss, sums = self.step.step(images, *targets)
                    self._clock.stepped(now() - began, len(images))
                    if what := spoiled(loss, sums) or (spoiled_state(self.step) if self._looks else ""):
                        self._not_finite(f"{what} at step {self._at.step}")
                    else:
                        self._at.in_a_row = 0
                        self._at.total.add(sums)
                self._keeper.check()
                self._check_stop()
                ended = now()
                if ended >= self._next_report or self._at.batch == self._batches:
                    self._report(ended)
                if self._keeper.due(ended):
                    self._check_state()
                    self._save()
        self._clock.end_epoch()

    def _end_epoch(self) -> None:
        """Evaluate, add the epoch's row, and save."""
        if not self._at.total.sums:
            raise DataError("no image of this epoch could be used.", where=self.train.where)
        total = self._evaluated(self.held_out)
        values = total.values(self._manifest.scalar_metrics)
        part = self._settings.held_out
        for name, value in values.items():
            if not math.isfinite(value):
                raise NotFinite(f"the {part} {name} became {value} after step {self._at.step}")
        self._check_state()
        row: Row = {"epoch": self._at.epoch + 1, "step": self._at.step}
        trained = self._at.total.values(self._manifest.scalar_metrics)
        row |= {f"train_{name}": value for name, value in trained.items()}
        row |= {f"{part}_{name}": value for name, value in values.items()}
        row["lr_scale"] = self._settings.scalars(self._manifest, self._factor)["lr_scale"]
        row["skipped"] = self._at.skipped
        self._at.end_epoch()
        self.history.add(row)
        self._set_rate()
        improved = self._criterion.best(self.history.rows) is row
        times = {"epoch": self._at.epoch, **self._clock.epoch()}
        self._save(EpochEnd(row, times, matrices_of(self.run.manifest, total.sums), improved))
        self.callback.on_epoch(row | times, improved)
        if not self._ended():
            self._check_stop()

    def _evaluated(self, split: Split) -> Accumulator:
        return self._evaluated_with(self.step.values, split)

    def _evaluated_with(self, state: State, split: Split) -> Accumulator:
        size = self._settings.eval_batch_size
        self.evaluation.use(averaged(self._manifest, state), batches=batches_of(split, size))
        return run_evaluation(self.evaluation, split, size, between=self._check_stop)

    def _check_state(self) -> None:
        """Raise NotFinite for a state that must not be saved, where not every step was looked at."""
        if not self._looks and (what := spoiled_state(self.step)):
            raise NotFinite(f"{what} after step {self._at.step}")

    def _not_finite(self, what: str) -> None:
        """Go on, or not, after a step that came to `what`."""
        if self._settings.on_nan != "skip":
            raise NotFinite(what)
        self.step.undo()
        self._at.skipped += 1
        self._at.in_a_row += 1
        if self._at.in_a_row >= min(SKIPS, self._batches):
            before = f", as at the {self._at.in_a_row - 1} batches before, which were skipped"
            self._diverged(what + before * (self._at.in_a_row > 1))
        self.callback.on_note(f"{what}: this batch is skipped.")

    def _roll_back(self, what: str) -> None:
        """Return to the state this epoch began with, at half the rate; or end the run."""
        if self._settings.on_nan != "rollback":
            self._diverged(what)
        if self._at.rollbacks >= ROLLBACKS:
            self._diverged(f"{what}, after {ROLLBACKS} rollbacks")
        checkpoint = self._keeper.epoch_start()
        self.step.load_state(checkpoint.state)
        self._go_to(replace(checkpoint.progress, rollbacks=self._at.rollbacks + 1))
        self.callback.on_note(
            f"{what}: back to step {self._at.step}, where epoch {self._at.epoch + 1} began, at "
            f"{self._factor:g} times the learning rate."
        )
        self._save()

    def _diverged(self, what: str) -> NoReturn:
        self._keeper.wait()
        rate = (self._settings.lr or 0.0) * self._factor
        raise diverged(
            what,
            self.run.path,
            epoch=self._at.epoch + 1,
            rate=rate,
            saved_step=self._keeper.saved_step,
        )

    def _spoilt(self, error: DataError) -> DataError:
        """The error about data that turned out bad in the middle of the run, which is saved first."""
        self._bring_to_disk()
        return spoilt(error, self.run.path, step=self._at.step)

    def _check_stop(self) -> None:
        """Save and raise Interrupted where the user asked to stop."""
        if not self.stop.asked:
            return
        self._bring_to_disk()
        epoch = min(self._at.epoch + 1, self._settings.epochs)
        raise interrupted(self.run.path, step=self._at.step, epoch=epoch)

    def _bring_to_disk(self) -> None:
        """Save the state as it is now, and wait until it is written."""
        self._keeper.wait()
        if self._at.step != self._keeper.saved_step:
            self._check_state()
            self._save()
            self._keeper.wait()

    def _progress(self) -> Progress:
        return self._at.progress(self.history.digest)

    def _save(self, ended: EpochEnd | None = None) -> None:
        self._keeper.save(self._progress(), ended)

    def _start(self) -> Start:
        notes = self.notes
        if (decay := self._manifest.average) is not None:
            notes += (f"evaluated with the moving average of its parameters (decay {decay:g}).",)
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
            step=self._at.step,
            notes=notes,
        )

    def _report(self, now: float) -> None:
        self._next_report = now + REPORT_SECONDS
        rate = self._clock.rate(now)
        epochs_left = self._settings.epochs - self._at.epoch - self._at.batch / self._batches
        moment = Moment(
            epoch=self._at.epoch + 1,
            epochs=self._settings.epochs,
            batch=self._at.batch,
            batches=self._batches,
            step=self._at.step,
            values=self._at.total.values(self._manifest.scalar_metrics) if self._at.total.sums else {},
            images_per_second=rate,
            seconds_left=epochs_left * len(self.train) / max(rate, 1e-9),
        )
        self.callback.on_step(moment)

    def _of_best(self) -> dict[str, float]:
        """The best state's metrics on the test split; none where its file was lost before a run went on."""
        try:
            state = load(self.run.path / BEST, self._manifest).state
        except RunError:
            return {}
        return self._evaluated_with(state, self.test).values(self._manifest.scalar_metrics)

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
                of_best = self._of_best()
        return Summary(
            run=self.run.path,
            epochs=self._at.epoch,
            steps=self._at.step,
            train=values["train"],
            test=values["test"],
            best_epoch=int(best["epoch"]),
            best=of_best,
            step_ms_median=self._clock.step_ms_median,
            images_per_second=self._clock.images_per_second,
            seconds=time.perf_counter() - began,
            peak_memory_mb=peak_memory() / 1e6,
            device=self.step.provider.device,
            tuned=self.step.is_tuned,
            skipped_images=sum(problem.kind == "image" for problem in self.dataset.problems),
            validation=values.get("validation", {}),
            stopped_early=self._at.epoch < self._settings.epochs,
            skipped=self._at.skipped,
            rollbacks=self._at.rollbacks,
        )
