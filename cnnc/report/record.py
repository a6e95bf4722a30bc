"""What a run directory tells, whether the run has ended, was stopped, or goes on just now."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cnnc.bundle import MetricSpec
from cnnc.errors import RunError, os_errors_as
from cnnc.runtime import Run
from cnnc.runtime.criterion import Criterion
from cnnc.runtime.environment import sessions
from cnnc.runtime.history import METRICS, TIMES, Row, columns
from cnnc.runtime.run import SUMMARY


@dataclass(frozen=True)
class Record:
    """A run, the rows of its metrics.csv and times.csv, its summary (None before its end), environments."""

    run: Run
    rows: tuple[Row, ...]
    summary: dict[str, Any] | None
    environments: tuple[dict[str, Any], ...]

    @classmethod
    def read(cls, run: Run | str | os.PathLike[str]) -> Record:
        """Read a run directory. Raises RunError where it is no run, or one of these files is damaged."""
        run = run if isinstance(run, Run) else Run.open(run)
        summary = _json(run.path / SUMMARY)
        needed = columns(run.bundle.manifest, run.settings.held_out)
        rows = _rows(run.path / METRICS, needed, "Restore the file from a copy.")
        if (clock := run.path / TIMES).exists():
            hint = "It holds nothing but times: remove it, and they are left out."
            times = {row["epoch"]: row for row in _rows(clock, ["epoch"], hint)}
            rows = tuple(row | times.get(row["epoch"], {}) for row in rows)
        return cls(run, rows, summary, tuple(sessions(run.path)))

    @property
    def best_metric(self) -> MetricSpec:
        """The metric by which the best state is kept."""
        metrics = {metric.name: metric for metric in self.run.bundle.manifest.scalar_metrics}
        return metrics[str(self.run.settings.best)]

    @property
    def best(self) -> Row | None:
        """The row of the best epoch; None before the first one has ended."""
        if not self.rows:
            return None
        return Criterion.of(self.run.settings, self.run.bundle.manifest).best(list(self.rows))

    @property
    def held_out(self) -> str:
        """``test`` or ``validation``: the part of the data that each epoch ended with."""
        return self.run.settings.held_out

    @property
    def state_in_words(self) -> str:
        """``finished``, or how far the run has got."""
        wanted, done = self.run.settings.epochs, len(self.rows)
        if self.summary and done:
            return f"ended early, after {done} of {wanted} epochs" if done < wanted else "finished"
        return f"stopped after {done} of {wanted} epochs"


def _rows(path: Path, needed: Sequence[str], hint: str) -> tuple[Row, ...]:
    """The rows of a file that has the `needed` columns, all of numbers. Raises RunError."""
    with os_errors_as(RunError, "this can't be read", where=path):
        text = path.read_bytes()
    try:
        table = csv.DictReader(io.StringIO(text.decode()))
        if missing := sorted({*needed} - {*(table.fieldnames or ())}):
            raise ValueError(f"it lacks the column {missing[0]}")
        return tuple(_row(row, table.line_num) for row in table)
    except (ValueError, csv.Error) as error:
        raise RunError(f"this is damaged: {error}.", where=str(path), hint=hint) from error


def _row(row: Mapping[str | None, Any], line: int) -> Row:
    if None in row or None in row.values():
        raise ValueError(f"line {line} is shorter or longer than the first")
    return {str(name): _number(value) for name, value in row.items()}


def _number(text: str) -> float:
    try:
        return int(text) if text.lstrip("-").isdigit() else float(text)
    except ValueError:
        raise ValueError(f"'{text}' is no number") from None


def _json(path: Path) -> dict[str, Any] | None:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None
