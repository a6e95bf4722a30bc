"""From the sums of a metric over any set of batches to its value: one function for each kind of metric."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from cnnc.bundle import MetricSpec

Numbers = npt.NDArray[np.float64]


def value(metric: MetricSpec, sums: Mapping[str, tuple[Any, float]]) -> float:
    """The value of `metric`; NaN where nothing counted.

    `sums` hold a sum (a number, or nested lists) and a count by the name of what was counted.
    """
    if metric.parts:
        return sum(weight * _quotient(*sums[name]) for name, weight in metric.parts.items())
    total, count = sums[metric.counted]
    if not count:
        return math.nan
    return VALUES[metric.kind](np.asarray(total, np.float64), count, metric.label)


def _quotient(total: float, count: float) -> float:
    return total / count if count else math.nan


def _mean(total: Numbers, count: float, label: int | None) -> float:
    return float(total) / count


def _psnr(total: Numbers, count: float, label: int | None) -> float:
    return -10.0 * math.log10(max(float(total) / count, 1e-10))


def _share(
    of: Callable[[Numbers, Numbers, Numbers], Numbers],
) -> Callable[[Numbers, float, int | None], float]:
    """The diagonal over `of` (diagonal, row sums, column sums): of a class, or the mean of all that occur."""

    def share(matrix: Numbers, count: float, label: int | None) -> float:
        right, labels, answers = matrix.diagonal(), matrix.sum(axis=1), matrix.sum(axis=0)
        shares = right / np.maximum(of(right, labels, answers), 1.0)  # a class without any has 0
        return float(shares[labels + answers > 0].mean() if label is None else shares[label])

    return share


VALUES: dict[str, Callable[[Numbers, float, int | None], float]] = {
    "mean": _mean,
    "psnr": _psnr,
    "iou": _share(lambda right, labels, answers: labels + answers - right),
    "precision": _share(lambda right, labels, answers: answers),
    "recall": _share(lambda right, labels, answers: labels),
}
