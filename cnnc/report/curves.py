"""The curves of a run: loss, each metric, and the learning rate."""

from __future__ import annotations

import math

from cnnc.report.figure import Chart, Colour, Mark, Series
from cnnc.report.record import Record
from cnnc.runtime.learning_rate import LearningRate

MOST_METRICS = 8
RATES = 240
"""Points of the learning rate's curve."""
_SPAN = 100.0
"""Losses that span more than this factor are drawn over a logarithmic axis."""


def curves(record: Record) -> list[Chart]:
    """The charts of `record`; none where no epoch has ended."""
    if not record.rows:
        return []
    names = [metric.name for metric in record.run.bundle.manifest.scalar_metrics]
    names = sorted(names, key=lambda name: name != "loss")[: MOST_METRICS + 1]
    charts = [_metric(record, name) for name in names]
    rate = _learning_rate(record)
    return [*charts, rate] if rate else charts


def _metric(record: Record, name: str) -> Chart:
    epochs = [row["epoch"] for row in record.rows]
    parts: tuple[tuple[str, Colour], ...] = (("train", "train"), (record.held_out, "test"))
    series = tuple(
        Series(part, epochs, [row[f"{part}_{name}"] for row in record.rows], colour) for part, colour in parts
    )
    values = [y for each in series for y in each.y if math.isfinite(y)]
    wide = name == "loss" and min(values, default=0) > 0 and max(values) / min(values) > _SPAN
    marks = (Mark(record.best["epoch"], "best"),) if record.best and name == record.best_metric.name else ()
    return Chart(name, name.replace("_", " ").capitalize(), "epoch", series, marks, log_y=wide)


def _learning_rate(record: Record) -> Chart | None:
    """The rate of about `RATES` steps, each at the scale of its epoch."""
    try:
        rate = LearningRate(record.run.bundle)
    except LookupError:
        return None
    total = int(record.rows[-1]["step"])
    steps = sorted({round(i * (total - 1) / RATES) for i in range(RATES + 1)})
    ends = iter(record.rows)
    row, values = next(ends), []
    for step in steps:
        while step >= row["step"]:
            row = next(ends)
        values.append(rate.at(step, row.get("lr_scale", 1.0)))
    positive = [value for value in values if value > 0]
    wide = len(positive) == len(values) and max(positive) / min(positive) > _SPAN
    series = Series("learning rate", [step + 1 for step in steps], values)
    return Chart("learning_rate", "Learning rate", "step", (series,), log_y=wide)
