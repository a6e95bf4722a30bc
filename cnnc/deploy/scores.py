"""Metrics from the outputs of an inference model: what eval.onnx counts inside the graph, for any model.

A measure maps outputs (after softmax or sigmoid) and targets to one number for each answer; a metric is
their mean. Names and definitions are those of the losses and metrics of a graph file.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from cnnc.bundle import Array

Numbers = npt.NDArray[np.float64]
Measure = Callable[[Array, Array], Numbers]
Kind = Literal["class", "binary", "distribution", "value"]

_SMALLEST = float(np.finfo(np.float32).tiny)
LARGEST_LOSS = -float(np.log(_SMALLEST))
"""About 87: smaller probabilities than float32's smallest count as that one, so no loss is larger."""


def measure(name: str, kind: Kind) -> Measure | None:
    """The measure called `name` for targets of this kind (see `cnnc.bundle.TargetSpec`), if there is one."""
    top = re.fullmatch("top([0-9]+)_accuracy", name)
    if top and kind == "class":
        return partial(_top_accuracy, k=int(top[1]))
    return _MEASURES.get((kind, name))


def measured(function: Measure, outputs: Array, targets: Array, ignored: int | None) -> Numbers:
    """The measure of each answer whose target is not the label `ignored`, which counts for nothing."""
    if ignored is None:
        return function(outputs, targets)
    kept = targets != ignored
    return function(outputs, np.where(kept, targets, 0))[kept]


def _cross_entropy(outputs: Array, labels: Array) -> Numbers:
    """-log p of the label."""
    return -_log(np.take_along_axis(outputs, labels[:, None], axis=1)[:, 0])


def _top_accuracy(outputs: Array, labels: Array, k: int) -> Numbers:
    """1 where the label is among the k largest outputs, of equal ones the first."""
    best = np.argsort(-outputs, axis=1, kind="stable")[:, :k]
    return np.asarray((best == labels[:, None]).any(axis=1), dtype=np.float64)


def _binary_cross_entropy(outputs: Array, targets: Array) -> Numbers:
    """-t · log p - (1 - t) · log(1 - p), the mean over an example's elements."""
    return _mean(-targets * _log(outputs) - (1.0 - targets) * _log(1.0 - outputs.astype(np.float64)))


def _binary_accuracy(outputs: Array, targets: Array) -> Numbers:
    """1 for each element on the target's side of a half."""
    return np.asarray((outputs > 0.5) == (targets > 0.5), dtype=np.float64)


def _squared_error(outputs: Array, targets: Array) -> Numbers:
    """(output - target)², the mean over an example's elements."""
    return _mean((outputs.astype(np.float64) - targets) ** 2)


_MEASURES: dict[tuple[Kind, str], Measure] = {
    ("class", "loss"): _cross_entropy,
    ("class", "accuracy"): partial(_top_accuracy, k=1),
    ("binary", "loss"): _binary_cross_entropy,
    ("binary", "accuracy"): _binary_accuracy,
    ("value", "loss"): _squared_error,
}


def _log(probabilities: Array) -> Numbers:
    return np.asarray(np.log(np.maximum(probabilities.astype(np.float64), _SMALLEST)))


def _mean(values: npt.NDArray[Any]) -> Numbers:
    """[n, …] → [n]."""
    return np.asarray(values.reshape(len(values), -1).mean(axis=1), dtype=np.float64)
