"""What a figure shows, apart from how it is drawn, by `cnnc.report.svg` and `cnnc.report.png`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Colour = Literal["train", "test", "plain"]


@dataclass(frozen=True)
class Series:
    """A line through points; a y that is not finite leaves a gap. `colour` is a role, not a hue."""

    name: str
    x: Sequence[float]
    y: Sequence[float]
    colour: Colour = "plain"
    faint: bool = False


@dataclass(frozen=True)
class Mark:
    """A vertical line at `x` with a word beside it."""

    x: float
    text: str


@dataclass(frozen=True)
class Chart:
    """Lines over one axis. A logarithmic axis takes values above 0."""

    name: str
    title: str
    x_label: str
    series: tuple[Series, ...]
    marks: tuple[Mark, ...] = ()
    log_x: bool = False
    log_y: bool = False


@dataclass(frozen=True)
class Matrix:
    """Counts by label (rows) and prediction (columns)."""

    name: str
    title: str
    classes: tuple[str, ...]
    counts: tuple[tuple[int, ...], ...]

    @property
    def shares(self) -> tuple[tuple[float, ...], ...]:
        """Each count over the sum of its row; 0 where the row is empty."""
        return tuple(tuple(n / max(sum(row), 1) for n in row) for row in self.counts)

    def mistakes(self) -> list[tuple[int, int, int]]:
        """(label, prediction, count) of every pair that was confused, the most frequent first."""
        pairs = [(i, j, n) for i, row in enumerate(self.counts) for j, n in enumerate(row) if i != j and n]
        return sorted(pairs, key=lambda pair: (-pair[2], pair[:2]))


@dataclass(frozen=True)
class Axis:
    """The range of an axis and its ticks with their labels, `position` of a value in 0…1."""

    low: float
    high: float
    ticks: tuple[tuple[float, str], ...]
    log: bool = False

    def position(self, value: float) -> float:
        """Where `value` lies between the ends."""
        low, high = self._scaled(self.low), self._scaled(self.high)
        return (self._scaled(value) - low) / (high - low)

    def _scaled(self, value: float) -> float:
        return math.log10(value) if self.log else value


def axis(values: Sequence[float], *, log: bool = False, whole: bool = False, wanted: int = 5) -> Axis:
    """An axis that shows all finite `values` with about `wanted` round ticks, integers where `whole`."""
    finite = [v for v in values if math.isfinite(v) and (v > 0 or not log)] or [1.0]
    low, high = min(finite), max(finite)
    if log:
        return _log_axis(low, high)
    if high - low <= 1e-9 * max(abs(high), abs(low)):
        low, high = (low - 0.5, high + 0.5) if whole else (min(0.0, 2 * low), max(0.0, 2 * high) or 1.0)
    step = _round_step((high - low) / wanted)
    if whole:
        step = max(1.0, round(step))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    if not whole:  # the ends are ticks
        first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
        low, high = first * step, last * step
    return Axis(low, high, tuple((i * step, number(i * step)) for i in range(first, last + 1)))


def _round_step(step: float) -> float:
    """The next of 1, 2, 2.5 or 5 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(step))
    return next(power * m for m in (1, 2, 2.5, 5, 10) if power * m >= step * (1 - 1e-9))


def _log_axis(low: float, high: float) -> Axis:
    first, last = math.floor(math.log10(low) + 1e-9), math.ceil(math.log10(high) - 1e-9)
    last = max(last, first + 1)
    every = max(1, -(-(last - first) // 6))
    ticks = tuple((10.0**i, number(10.0**i)) for i in range(first, last + 1, every))
    return Axis(10.0**first, 10.0**last, ticks, log=True)


def number(value: float) -> str:
    """A number as short as its size allows: ``0.05``, ``1.2k``, ``1e-05``."""
    if abs(value) >= 10_000:
        return f"{value / 1e6:g}M" if abs(value) >= 1e6 else f"{value / 1e3:g}k"
    return f"{value:.4g}"
