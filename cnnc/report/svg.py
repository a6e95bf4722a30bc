"""Figures as SVG, without a plotting library. Colours are CSS variables: a page may have a dark form."""

from __future__ import annotations

import math
from collections.abc import Iterable
from html import escape

from cnnc.report.figure import Axis, Chart, Matrix, Series, axis, number

WIDTH, HEIGHT = 560, 320
_LEFT, _RIGHT, _TOP, _BOTTOM = 56, 18, 42, 44
NUMBERED = 26
"""Up to so many classes the cells of a confusion matrix show their numbers."""

STYLE = """
:root { --ink: #1b2733; --soft: #5f6f7f; --line: #dfe5eb; --paper: #ffffff; --panel: #f6f8fa;
  --train: #2f6fdb; --test: #e0602c; --plain: #2f6fdb; --heat: 47, 111, 219; --miss: 224, 96, 44;
  --forward: #2f6fdb; --backward: #d9480f; --gradient: #c2255c; --update: #2b8a3e; }
@media (prefers-color-scheme: dark) { :root { --ink: #e4eaf0; --soft: #93a1b0; --line: #313b46;
  --paper: #14191f; --panel: #1b222a; --train: #6ea8ff; --test: #ff9561; --plain: #6ea8ff;
  --heat: 110, 168, 255; --miss: 255, 149, 97; --forward: #6ea8ff; --backward: #ff8a4c;
  --gradient: #f783ac; --update: #69db7c; } }
"""
_OWN = """
svg.figure { font-family: system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; }
.figure text { fill: var(--soft); font-size: 11.5px; }
.figure .title { fill: var(--ink); font-size: 14px; font-weight: 600; }
.figure .strong { fill: var(--ink); }
.figure .grid { stroke: var(--line); stroke-width: 1; }
.figure .curve { fill: none; stroke-width: 2; stroke-linejoin: round; stroke-linecap: round; }
.figure .faint { stroke-width: 1; opacity: .35; }
.figure .mark { stroke: var(--soft); stroke-dasharray: 3 3; }
.figure .back { fill: var(--paper); }
"""
CSS = STYLE + _OWN


def document(inner: str, width: float, height: float, label: str, alone: bool, kind: str = "figure") -> str:
    """An ``<svg>`` of this size; `alone` gives it what a file of its own needs."""
    head = f'<svg class="{kind}" viewBox="0 0 {width:g} {height:g}" role="img" aria-label="{escape(label)}"'
    if not alone:
        return f'{head} style="max-width:{width:g}px">{inner}</svg>'
    size = f' xmlns="http://www.w3.org/2000/svg" width="{width:g}" height="{height:g}"'
    paper = f'<rect class="back" width="{width:g}" height="{height:g}"/>'
    return f"{head}{size}><style>{CSS}</style>{paper}{inner}</svg>\n"


def draw_chart(chart: Chart, *, alone: bool = False) -> str:
    """A line chart: grid, legend, lines, and a dot with a tooltip at each point where there is room."""
    xs = [x for series in chart.series for x in series.x]
    ys = [y for series in chart.series for y in series.y]
    whole = all(float(x).is_integer() for x in xs)
    plane = _Plane(
        axis(xs, log=chart.log_x, whole=whole and not chart.log_x, wanted=8), axis(ys, log=chart.log_y)
    )
    parts = [_text(_LEFT, 20, chart.title, "title"), *plane.grid(chart.x_label)]
    for mark in chart.marks:
        x = plane.x(mark.x)
        parts.append(f'<line class="mark" x1="{x:.1f}" x2="{x:.1f}" y1="{_TOP}" y2="{HEIGHT - _BOTTOM}"/>')
        parts.append(_text(x, _TOP - 5, mark.text, anchor="middle"))
    for series in chart.series:
        parts += plane.line(series)
    parts += _legend(chart.series)
    return document("".join(parts), WIDTH, HEIGHT, chart.title, alone)


class _Plane:
    """Two axes on the canvas."""

    def __init__(self, x: Axis, y: Axis) -> None:
        self.across, self.up = x, y

    def x(self, value: float) -> float:
        return _LEFT + self.across.position(value) * (WIDTH - _LEFT - _RIGHT)

    def y(self, value: float) -> float:
        return HEIGHT - _BOTTOM - self.up.position(value) * (HEIGHT - _TOP - _BOTTOM)

    def grid(self, x_label: str) -> Iterable[str]:
        floor = HEIGHT - _BOTTOM
        for value, label in self.up.ticks:
            y = self.y(value)
            yield f'<line class="grid" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
            yield _text(_LEFT - 7, y + 4, label, anchor="end")
        for value, label in self.across.ticks:
            yield _text(self.x(value), floor + 17, label, anchor="middle")
        yield _text((_LEFT + WIDTH - _RIGHT) / 2, HEIGHT - 9, x_label, anchor="middle")

    def line(self, series: Series) -> Iterable[str]:
        runs: list[list[tuple[float, float]]] = [[]]
        for x, y in zip(series.x, series.y, strict=True):
            if math.isfinite(y) and (y > 0 or not self.up.log):
                runs[-1].append((x, y))
            elif runs[-1]:
                runs.append([])
        kind = "curve faint" if series.faint else "curve"
        for run in runs:
            path = " ".join(f"{self.x(x):.1f},{self.y(y):.1f}" for x, y in run)
            yield f'<polyline class="{kind}" style="stroke:var(--{series.colour})" points="{path}"/>'
            if len(series.x) <= 60 and not series.faint:
                for x, y in run:
                    place = f'cx="{self.x(x):.1f}" cy="{self.y(y):.1f}"'
                    words = escape(f"{series.name} {y:.4g} at {x:g}")
                    fill = f"fill:var(--{series.colour})"
                    yield f'<circle {place} r="3" style="{fill}"><title>{words}</title></circle>'


def _legend(series: tuple[Series, ...]) -> Iterable[str]:
    shown = [each for each in series if not each.faint and each.name]
    if len(shown) < 2:
        return
    x = WIDTH - _RIGHT - sum(30 + 6.4 * len(each.name) for each in shown)
    for each in shown:
        colour, ends = f"stroke:var(--{each.colour})", f'x1="{x:.1f}" x2="{x + 16:.1f}"'
        yield f'<line class="curve" style="{colour}" {ends} y1="16" y2="16"/>'
        yield _text(x + 21, 20, each.name, "strong")
        x += 30 + 6.4 * len(each.name)


def draw_matrix(matrix: Matrix, *, shares: bool = False, alone: bool = False) -> str:
    """A confusion matrix: a cell is as strong as its share of the row, right ones blue, wrong ones orange."""
    count = len(matrix.classes)
    cell = 44.0 if count <= 12 else max(3.0, 560.0 / count)
    names = [_shortened(name, 14) for name in matrix.classes]
    shown = count <= 60
    margin = 34 + (6.6 * max(map(len, names)) if shown else 0)
    size = margin + count * cell
    parts = [_text(margin, 20, matrix.title, "title")]
    top = 34 + (margin - 34 if _turned(names, cell) else 16) if shown else 34
    size_y = top + count * cell
    cells = matrix.shares
    for i, row in enumerate(cells):
        for j, share in enumerate(row):
            parts += _cell(matrix, i, j, share, margin + j * cell, top + i * cell, cell, shares)
    if shown:
        for i, name in enumerate(names):
            middle = (i + 0.5) * cell
            parts.append(_text(margin - 6, top + middle + 4, name, "strong", anchor="end"))
            if _turned(names, cell):
                turn = f'transform="translate({margin + middle + 4:.1f} {top - 6:.1f}) rotate(-90)"'
                parts.append(f'<text class="strong" {turn}>{escape(name)}</text>')
            else:
                parts.append(_text(margin + middle, top - 6, name, "strong", anchor="middle"))
    parts.append(f'<text transform="translate(12 {top + count * cell / 2:.1f}) rotate(-90)" '
                 'text-anchor="middle">label</text>')  # fmt: skip
    parts.append(_text(margin + count * cell / 2, size_y + 18, "prediction", anchor="middle"))
    return document("".join(parts), max(size + 12, 300), size_y + 28, matrix.title, alone)


def _turned(names: list[str], cell: float) -> bool:
    """Whether names of columns must stand upright."""
    return max(map(len, names)) * 6.6 > cell - 4


def _cell(
    matrix: Matrix, i: int, j: int, share: float, x: float, y: float, size: float, shares: bool
) -> Iterable[str]:
    number_of = matrix.counts[i][j]
    if not number_of and len(matrix.classes) > 60:
        return
    colour = "heat" if i == j else "miss"
    # A square root shows the few mistakes of a good network beside its many right answers.
    strength = math.sqrt(share) * 0.9 if number_of else 0.0
    words = escape(f"{matrix.classes[i]} taken for {matrix.classes[j]}: {number_of:,} ({share:.1%})")
    yield (
        f'<rect x="{x:.1f}" y="{y:.1f}" width="{size:.1f}" height="{size:.1f}" '
        f'style="fill:rgba(var(--{colour}),{strength:.3f});stroke:var(--line);stroke-width:.5">'
        f"<title>{words}</title></rect>"
    )
    if number_of and len(matrix.classes) <= NUMBERED:
        said = f"{share:.0%}" if shares else number(number_of)
        if shares and 0 < share < 0.005:
            said = "<1%"
        fill = "fill:#fff" if strength > 0.62 else ""
        text = f'x="{x + size / 2:.1f}" y="{y + size / 2 + 4:.1f}" text-anchor="middle" style="{fill}"'
        yield f'<text class="strong" {text}>{escape(said)}</text>'


def _text(x: float, y: float, text: str, kind: str = "", anchor: str = "start") -> str:
    name = f' class="{kind}"' if kind else ""
    place = f' text-anchor="{anchor}"' if anchor != "start" else ""
    return f'<text x="{x:.1f}" y="{y:.1f}"{name}{place}>{escape(text)}</text>'


def _shortened(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"
