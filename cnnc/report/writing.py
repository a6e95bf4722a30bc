"""A run's pictures and its report on disk, at the end of the run or anew."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from cnnc.data import Dataset
from cnnc.errors import CnncError, RunError, os_errors_as
from cnnc.report import png, svg
from cnnc.report.answers import Answers, answers
from cnnc.report.curves import curves
from cnnc.report.figure import Chart
from cnnc.report.graph_reading import training_graph
from cnnc.report.graph_svg import draw_graph
from cnnc.report.page import page
from cnnc.report.pictures import draw_wrong
from cnnc.report.record import Record
from cnnc.runtime import Callback, Run, Start, Summary
from cnnc.runtime.files import file_names, write_whole

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

    Of several outputs each has a confusion matrix and a grid of its own, under its name. With `images` all
    but the graph are written as PNG, too. The answers on the test split need `dataset`; without it they are
    left out, and `note` should say why. Raises RunError where the run can't be read or written or matplotlib
    is missing for `images`, and what running the network raises.
    """
    if images:
        png.require_matplotlib()
    record = Record.read(run)
    found, note = _answers(record, dataset, note)
    charts, graph = curves(record), training_graph(record.run.bundle)
    pictures = [*map(_chart, charts), *(each for one in found for each in _pictures(one))]
    pictures.append(_Picture("training_graph", lambda: draw_graph(graph)))
    folder, report = record.run.path / PLOTS, record.run.path / REPORT
    written: dict[Path, bytes] = {}
    for each, name in zip(pictures, file_names(each.name for each in pictures), strict=True):
        written[folder / f"{name}.svg"] = _utf8(each.svg())
        if images and each.png:
            written[folder / f"{name}.png"] = each.png()
    written[report] = _utf8(page(record, charts, graph, found, note))
    with os_errors_as(RunError, "the report can't be written", where=record.run.path):
        folder.mkdir(exist_ok=True)
        for path, data in written.items():
            write_whole(path, data)
    return Reported(report, tuple(written)[:-1], note)


def _utf8(text: str) -> bytes:
    """A class is called as its folder is, which may be of bytes that are no text: those are spelt out."""
    return text.encode("utf-8", "backslashreplace")


@dataclass(frozen=True)
class _Picture:
    """A picture, and what draws it as SVG, and as PNG."""

    name: str
    svg: Callable[[], str]
    png: Callable[[], bytes] | None = None


def _chart(chart: Chart) -> _Picture:
    return _Picture(chart.name, partial(svg.draw_chart, chart, alone=True), partial(png.draw_chart, chart))


def _pictures(found: Answers) -> Iterator[_Picture]:
    """Those of one output."""
    matrix = found.matrix
    for name, shares in ((matrix.name, False), (f"{matrix.name}_shares", True)):
        yield _Picture(
            name,
            partial(svg.draw_matrix, matrix, shares=shares, alone=True),
            partial(png.draw_matrix, matrix, shares=shares),
        )
    if found.wrong:
        yield _Picture(
            f"{found.output}_most_wrong".lstrip("_"),
            partial(draw_wrong, found.wrong, probabilities=found.probabilities, alone=True),
            partial(png.draw_wrong, found.wrong, probabilities=found.probabilities),
        )


def _answers(record: Record, dataset: Dataset | None, note: str) -> tuple[tuple[Answers, ...], str]:
    if dataset is None:
        return (), note
    if not record.rows:
        return answers(record.run, dataset, which="last"), note
    try:
        return answers(record.run, dataset, which="best"), note
    except RunError as error:
        note = f"{note} The answers are those of the last state. {error.where}: {error.what}".strip()
        return answers(record.run, dataset, which="last"), note


class RunReport(Callback):
    """Writes the report of a run as it ends, and a shorter one where it is stopped.

    A report that can't be made stops nothing: `say` gets a sentence about it, and about what a report lacks.
    `made` is the path of the last one, None until there is one.
    """

    def __init__(self, dataset: Dataset, say: Callable[[str], None] = lambda text: None) -> None:
        self._dataset, self._say = dataset, say
        self._run: Path | None = None
        self.made: Path | None = None

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
            reported = write_report(self._run, dataset, note=note)
        except CnncError as error:
            self._say(f"The report could not be made: {error}")
        except Exception as error:
            self._say(f"The report could not be made: {type(error).__name__}: {error}.")
        else:
            self.made = reported.report
            if reported.note != note:
                self._say(reported.note)
