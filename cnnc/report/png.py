"""Figures as PNG, for slides and papers, by matplotlib: the extra ``cnnc[plots]``."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

from cnnc.errors import RunError
from cnnc.report.answers import Wrong
from cnnc.report.figure import Chart, Colour, Matrix
from cnnc.report.pictures import TITLE, captions, grid_of, shown

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS: dict[Colour, str] = {"train": "#2f6fdb", "test": "#e0602c", "plain": "#2f6fdb"}
_INK, _SOFT, _LINE, _MISS = "#1b2733", "#5f6f7f", "#dfe5eb", COLOURS["test"]
_NUMBERED = 20


def require_matplotlib() -> None:
    """Raise RunError where matplotlib is missing."""
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise RunError(
            f"PNG pictures need matplotlib, which can't be imported: {error}.",
            hint="Install the extra: `pip install 'cnnc[plots]'`. The SVG pictures need nothing.",
        ) from error


def draw_chart(chart: Chart) -> bytes:
    """A line chart."""
    figure, axes = _figure(5.6, 3.4)
    for series in chart.series:
        marker = "o" if len(series.x) <= 60 else ""
        colour = COLOURS[series.colour]
        axes.plot(series.x, series.y, marker=marker, ms=3.5, color=colour, label=series.name)
    for mark in chart.marks:
        axes.axvline(mark.x, color=_SOFT, ls=":", lw=1)
        axes.annotate(mark.text, (mark.x, 1.0), xycoords=("data", "axes fraction"), ha="center", va="bottom",
                      fontsize=8, color=_SOFT)  # fmt: skip
    axes.set_xscale("log" if chart.log_x else "linear")
    axes.set_yscale("log" if chart.log_y else "linear")
    if not chart.log_x and all(float(x).is_integer() for series in chart.series for x in series.x):
        from matplotlib.ticker import MaxNLocator

        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel(chart.x_label, color=_SOFT)
    axes.set_title(chart.title, loc="left", color=_INK, fontweight="bold", fontsize=11)
    axes.grid(axis="y", color=_LINE)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(colors=_SOFT, labelsize=8, length=0)
    if len(chart.series) > 1:
        axes.legend(frameon=False, fontsize=8)
    return _encoded(figure)


def draw_matrix(matrix: Matrix, *, shares: bool = False) -> bytes:
    """A confusion matrix, coloured by the shares of each row."""
    count = len(matrix.classes)
    size = min(12.0, 2.2 + 0.42 * count)
    figure, axes = _figure(size, size)
    axes.imshow(matrix.shares, cmap="Blues", vmin=0, vmax=1, aspect="equal")
    if count <= _NUMBERED:
        for i, row in enumerate(matrix.shares):
            for j, share in enumerate(row):
                if number := matrix.counts[i][j]:
                    words = f"{share:.0%}" if shares else f"{number:,}"
                    colour = "white" if share > 0.5 else _INK
                    axes.text(j, i, words, ha="center", va="center", fontsize=7, color=colour)
    if count <= 60:
        turned = 90 if max(map(len, matrix.classes)) > 3 else 0
        axes.set_xticks(range(count), matrix.classes, rotation=turned, fontsize=7)
        axes.set_yticks(range(count), matrix.classes, fontsize=7)
    axes.set_xlabel("prediction", color=_SOFT)
    axes.set_ylabel("label", color=_SOFT)
    axes.set_title(matrix.title, loc="left", color=_INK, fontweight="bold", fontsize=11)
    axes.tick_params(length=0)
    return _encoded(figure)


def draw_wrong(wrong: Sequence[Wrong], *, probabilities: bool) -> bytes:
    """The grid of images that `cnnc.report.pictures.draw_wrong` draws."""
    columns, rows = grid_of(len(wrong))
    figure = _canvas(0.4 + 1.15 * columns, 0.5 + 1.55 * rows)
    figure.suptitle(TITLE, x=0.005, ha="left", color=_INK, fontweight="bold", fontsize=11)
    for place, each in enumerate(wrong):
        axes = figure.add_subplot(rows, columns, place + 1)
        picture = shown(each.image)
        few = max(picture.size) < 96  # each pixel is seen as one
        axes.imshow(picture.convert("RGB"), interpolation="nearest" if few else "antialiased")
        taken, label = captions(each, probabilities)
        axes.set_title(taken, loc="left", fontsize=7.5, color=_MISS, pad=3)
        axes.set_xlabel(label, loc="left", fontsize=7.5, color=_SOFT, labelpad=3)
        axes.set_xticks([])
        axes.set_yticks([])
        axes.spines[:].set_visible(False)
    return _encoded(figure)


def _figure(width: float, height: float) -> tuple[Figure, Axes]:
    """A figure with axes."""
    figure = _canvas(width, height)
    return figure, figure.subplots()


def _canvas(width: float, height: float) -> Figure:
    """A figure of its own, which no global state of matplotlib knows."""
    require_matplotlib()
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _encoded(figure: Figure) -> bytes:
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=160)
    return file.getvalue()
