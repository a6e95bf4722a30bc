"""The profile of a step as a picture."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cnnc.errors import UsageError
from cnnc.profiling.attribution import PARTS, Part
from cnnc.profiling.report import Profile, Report, Row

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FORMATS = (".png", ".svg", ".pdf")
MOST_ROWS = 32
"""More layers than these become one row of the smallest."""

# Okabe and Ito's colours, which those who don't see all colours can tell apart, too.
COLOURS: dict[Part, str] = {
    "forward": "#0072B2",
    "recomputation": "#56B4E9",
    "input gradient": "#E69F00",
    "weight gradient": "#D55E00",
    "update": "#009E73",
    "loss": "#CC79A7",
}
_GREY, _DARK = "#999999", "#222222"
_LIGHT: tuple[str, ...] = ("recomputation", "input gradient", "loss")
"""Parts whose colour wants dark words on it."""


def check_picture(path: Path) -> None:
    """Raise UsageError unless a picture can be drawn to a file of this name."""
    if path.suffix.lower() not in FORMATS:
        raise UsageError(
            f"'{path}' is no name of a picture.",
            hint=f"Let it end in {', '.join(FORMATS[:-1])} or {FORMATS[-1]}.",
        )
    try:
        import matplotlib  # noqa: F401
    except ModuleNotFoundError as error:
        raise UsageError(
            "pictures need matplotlib.", hint="Install the extra: pip install 'cnnc[plots]'."
        ) from error


def draw(report: Report, path: Path) -> None:
    """Draw the profile of `report` to `path`, PNG, SVG or PDF by its name. Raises UsageError, OSError."""
    check_picture(path)
    assert report.profile is not None
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    profile = report.profile
    rows = _gathered(profile.rows)
    height = 1.9 + 0.27 * len(rows)
    figure = Figure(figsize=(9, height), layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    whole, layers = figure.subplots(2, 1, height_ratios=[0.55, 0.27 * len(rows)])
    figure.suptitle(_title(report), fontsize=11, fontweight="bold", x=0.01, ha="left")
    _whole(whole, profile)
    _layers(layers, rows, profile)
    figure.savefig(path, dpi=160)


def _title(report: Report) -> str:
    what = {"train": "training step", "eval": "evaluation", "infer": "inference"}[report.task]
    return (
        f"{report.name} · {what} · batch {report.batch}: {_ms(report.median)}, "
        f"{report.images_per_second:,.0f} images/s, {report.peak_memory / 1e6:,.0f} MB"
    )


def _whole(axes: Axes, profile: Profile) -> None:
    """One bar: the parts of the step, and what is outside of kernels."""
    pieces = [(str(part), ms, COLOURS[part]) for part, ms in profile.parts.items()]
    pieces += [("not assigned", profile.unassigned, _GREY)] if profile.unassigned else []
    total, left = sum(ms for _, ms, _ in pieces), 0.0
    for name, ms, colour in pieces:
        axes.barh([0], [ms], left=left, color=colour, height=0.9, label=name)
        if ms > 0.07 * total:
            ink = _DARK if name in _LIGHT else "white"
            axes.text(left + ms / 2, 0, f"{ms / total:.0%}", ha="center", va="center", color=ink, fontsize=9)
        left += ms
    axes.set_xlim(0, total)
    axes.set_axis_off()
    axes.legend(
        loc="lower left", bbox_to_anchor=(0, 1.0), ncols=len(pieces), frameon=False, fontsize=9,
        borderaxespad=0, handlelength=1, columnspacing=1.4,
    )  # fmt: skip


def _layers(axes: Axes, rows: Sequence[Row], profile: Profile) -> None:
    """A bar a layer, from the first at the top to the last."""
    places = range(len(rows))
    left = [0.0] * len(rows)
    for part in PARTS:
        widths = [row.parts.get(part, 0.0) for row in rows]
        axes.barh(places, widths, left=left, color=COLOURS[part], height=0.78)
        left = [a + b for a, b in zip(left, widths, strict=True)]
    most = max(left, default=0.0) or 1.0
    for place, row in zip(places, rows, strict=True):
        words = f"{_ms(row.total)}  {_percent(row.total / profile.kernels)}"
        axes.text(row.total + 0.008 * most, place, words, va="center", fontsize=8, color="#444444")
    axes.set_yticks(places, [_short(row.layer) for row in rows], fontsize=9)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_xlim(0, 1.14 * most)
    axes.set_xlabel("milliseconds of kernels in one step, under the profiler", fontsize=9)
    axes.tick_params(axis="x", labelsize=9)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x", color="#dddddd", linewidth=0.7)
    axes.set_axisbelow(True)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)


def _gathered(rows: Sequence[Row]) -> list[Row]:
    """At most `MOST_ROWS` rows: the largest in their order, and the sum of the others."""
    if len(rows) <= MOST_ROWS:
        return list(rows)
    kept = sorted(rows, key=lambda row: -row.total)[: MOST_ROWS - 1]
    others = [row for row in rows if row not in kept]
    return [row for row in rows if row in kept] + [_sum(f"{len(others)} smaller ones", others)]


def _sum(name: str, rows: Iterable[Row]) -> Row:
    parts: dict[Part, float] = {}
    for row in rows:
        for part, ms in row.parts.items():
            parts[part] = parts.get(part, 0.0) + ms
    return Row(name, parts)


def _short(name: str, most: int = 32) -> str:
    return name if len(name) <= most else f"…{name[1 - most :]}"


def _ms(value: float) -> str:
    return f"{value:.{3 if value >= 1 else 2}g} ms" if value < 1000 else f"{value / 1000:.3g} s"


def _percent(share: float) -> str:
    return "<1%" if share < 0.01 else f"{share:.0%}"
