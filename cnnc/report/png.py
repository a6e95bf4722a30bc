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
_TILE, _ACROSS, _DOWN = 1.0, 1.12, 1.5
"""Inches: of an image of the grid, and from one to the next."""


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
    width, height = 0.2 + _ACROSS * columns, 0.45 + _DOWN * rows
    figure = _canvas(width, height)
    figure.text(0.1 / width, 1 - 0.1 / height, TITLE, va="top", color=_INK, fontweight="bold", fontsize=11)
    for place, each in enumerate(wrong):
        left = 0.1 + place % columns * _ACROSS
        bottom = height - 0.62 - _TILE - place // columns * _DOWN
        axes = figure.add_axes((left / width, bottom / height, _TILE / width, _TILE / height))
        picture = shown(each.image)
        few = max(picture.size) < 96  # each pixel is seen as one
        axes.imshow(picture.convert("RGB"), interpolation="nearest" if few else "antialiased")
        axes.set_axis_off()
        taken, label = captions(each, probabilities)
        for words, colour, y in ((taken, _MISS, bottom + _TILE + 0.05), (label, _SOFT, bottom - 0.13)):
            figure.text(left / width, y / height, words, color=colour, fontsize=7.5)
    return _encoded(figure)


def _figure(width: float, height: float) -> tuple[Figure, Axes]:
    """A figure with axes."""
    figure = _canvas(width, height)
    figure.set_layout_engine("constrained")
    return figure, figure.subplots()


def _canvas(width: float, height: float) -> Figure:
    """A figure of its own, which no global state of matplotlib knows."""
    require_matplotlib()
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height))
    FigureCanvasAgg(figure)
    return figure


def _encoded(figure: Figure) -> bytes:
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=160)
    return file.getvalue()
