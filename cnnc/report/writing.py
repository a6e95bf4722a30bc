"""A run's pictures and its report on disk, at the end of the run or anew."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from cnnc.data import Dataset
from cnnc.deploy.trained import Which
from cnnc.errors import CnncError, RunError, os_errors_as
from cnnc.report import png, svg
from cnnc.report.answers import Answers, answers
from cnnc.report.curves import curves
from cnnc.report.graph_reading import training_graph
from cnnc.report.graph_svg import draw_graph
from cnnc.report.page import page
from cnnc.report.pictures import draw_wrong
from cnnc.report.record import Record
from cnnc.runtime import Callback, Run, Start, Summary
from cnnc.runtime.checkpoint import BEST
from cnnc.runtime.files import write_whole

REPORT, PLOTS = "report.html", "plots"


@dataclass(frozen=True)
class Reported:
    """Where the report is, the pictures beside it, and what is missing in it and why."""

    report: Path
    plots: tuple[Path, ...]
    note: str


def write_report(
    run: Run | str | os.PathLike[str], dataset: Dataset | None = None, *, note: str = "", images: bool = False
) -> Reported:
    """Write report.html and plots/ of a run, in place of those that stand there.

    ::

        RUN/report.html                  one file that shows everything, without network access
        RUN/plots/loss.svg, accuracy.svg, …, learning_rate.svg
        RUN/plots/confusion_matrix.svg, confusion_matrix_shares.svg, most_wrong.svg
        RUN/plots/training_graph.svg

    With `images` the curves and the matrices are written as PNG, too. The answers on the test split need
    `dataset`; without it they are left out, and `note` should say why. Raises RunError where the run can't be
    read or written or matplotlib is missing for `images`, and what running the network raises.
    """
    if images:
        png.require_matplotlib()
    record = Record.read(run)
    given, note = _answers(record, dataset, note)
    charts, graph = curves(record), training_graph(record.run.bundle)
    pictures: dict[str, Callable[[], str]] = {
        **{chart.name: partial(svg.draw_chart, chart, alone=True) for chart in charts},
        "training_graph": lambda: draw_graph(graph),
    }
    if given is not None:
        matrix, wrong = given.matrix, given.wrong
        pictures["confusion_matrix"] = lambda: svg.draw_matrix(matrix, alone=True)
        pictures["confusion_matrix_shares"] = lambda: svg.draw_matrix(matrix, shares=True, alone=True)
        if wrong:
            pictures["most_wrong"] = lambda: draw_wrong(wrong, probabilities=given.probabilities, alone=True)
    drawn: dict[str, Callable[[], bytes]] = {}
    if images:
        drawn |= {chart.name: partial(png.draw_chart, chart) for chart in charts}
        if given is not None:
            drawn["confusion_matrix"] = partial(png.draw_matrix, given.matrix)
            drawn["confusion_matrix_shares"] = partial(png.draw_matrix, given.matrix, shares=True)
    folder = record.run.path / PLOTS
    paths = {name: folder / f"{name}.svg" for name in pictures}
    with os_errors_as(RunError, "the report can't be written", where=record.run.path):
        folder.mkdir(exist_ok=True)
        for name, draw in pictures.items():
            write_whole(paths[name], draw().encode())
        for name, paint in drawn.items():
            write_whole(folder / f"{name}.png", paint())
        report = record.run.path / REPORT
        write_whole(report, page(record, charts, graph, given, note).encode())
    also = (folder / f"{name}.png" for name in drawn)
    return Reported(report, (*paths.values(), *also), note)


def _answers(record: Record, dataset: Dataset | None, note: str) -> tuple[Answers | None, str]:
    if dataset is None:
        return None, note
    which: Which = "best" if (record.run.path / BEST).exists() else "last"
    return answers(record.run, dataset, which=which), note


class RunReport(Callback):
    """Writes the report of a run as it ends, and a shorter one where it is stopped.

    A report that can't be made stops nothing: `say` gets a sentence about it.
    """

    def __init__(self, dataset: Dataset, say: Callable[[str], None] = lambda text: None) -> None:
        self._dataset, self._say = dataset, say
        self._run: Path | None = None

    def on_start(self, start: Start) -> None:
        """Remember where the run is."""
        self._run = start.run

    def on_end(self, summary: Summary) -> None:
        """Write the whole report."""
        self._write(self._dataset)

    def on_stop(self, reason: CnncError) -> None:
        """Write what takes no time: the network is not run over the test split."""
        note = f"The answers on the test split are left out. `cnnc report {self._run}` adds them."
        self._write(None, note)

    def _write(self, dataset: Dataset | None, note: str = "") -> None:
        assert self._run is not None
        try:
            write_report(self._run, dataset, note=note)
        except CnncError as error:
            self._say(f"The report could not be made: {error}")
        except Exception as error:
            self._say(f"The report could not be made: {type(error).__name__}: {error}.")
