"""How a training run is shown: while it goes on, and at its end."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from cnnc.cli.output import counted, fault_words, metric_words, print_note, print_notes

if TYPE_CHECKING:
    from cnnc.data import Dataset
    from cnnc.runtime import Callback, Summary

SHOWN = 5
"""So many bad images are named."""


@dataclass
class Shown:
    """How a run is to be shown; `report` is the one that it wrote."""

    quiet: bool
    tensorboard: bool
    report: Path | None = None

    @contextmanager
    def callbacks(self, dataset: Dataset) -> Iterator[list[Callback]]:
        """The callbacks that show it. Raises RunError where a package for them is missing."""
        from cnnc.cli.progress import progress
        from cnnc.report import RunReport

        files: list[Callback] = []
        if self.tensorboard:
            from cnnc.report.tensorboard import TensorBoard

            files.append(TensorBoard())
        with progress(self.quiet) as screen:
            report = RunReport(dataset, print_note)
            yield [screen, *files, report]
            self.report = report.made


@contextmanager
def skipped_told(dataset: Dataset) -> Iterator[None]:
    """At the end, however it comes, say which images were skipped."""
    try:
        yield
    finally:
        if problems := dataset.problems:
            print_notes([f"{fault_words(problems)} skipped in the training and test data:"])
            print_notes(f"{problem.where}: {problem.what}" for problem in problems[:SHOWN])
            if len(problems) > SHOWN:
                print_notes([f"… and {len(problems) - SHOWN:,} more: `cnnc data check` lists all."])


def print_summary(summary: Summary, report: Path | None) -> None:
    """What a run came to, for people, and where its `report` is."""
    done = f"{counted(summary.epochs, 'epoch')}, {counted(summary.steps, 'step')}"
    typer.echo(f"run {summary.run}: {done} in {summary.seconds:.1f} s")
    if summary.step_ms_median is not None and summary.images_per_second is not None:
        speed = f"{summary.step_ms_median:.2f} ms a step (median), {summary.images_per_second:,.0f} images/s"
        typer.echo(f"{speed}, at most {summary.peak_memory_mb:,.0f} MB of memory")
    if summary.stopped_early:
        typer.echo(f"stopped early: no epoch after {summary.best_epoch} was better by enough")
    best = f"test {metric_words(summary.best)}" if summary.best else "its state is lost"
    typer.echo(f"best epoch {summary.best_epoch}: {best}")
    typer.echo(f"test {metric_words(summary.test)}")
    if report is not None:
        typer.echo(f"report {report}")
