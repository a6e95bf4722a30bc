"""metrics.csv and times.csv: one row an epoch, written as it ends.

What a clock decides stands in times.csv, so that metrics.csv is the same to the byte however often a run was
stopped and resumed.
"""

from __future__ import annotations

import csv
import hashlib
import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from cnnc.bundle import Manifest
from cnnc.errors import RunError, os_errors_as
from cnnc.runtime.checkpoint import Progress
from cnnc.runtime.files import append_line, write_whole

METRICS, TIMES = "metrics.csv", "times.csv"
_MEND = "Restore the file from a copy, or train anew."
Row = dict[str, float]
"""The columns of metrics.csv with their numbers; integers stay integers."""


def header(columns: Sequence[str]) -> bytes:
    """The first line of the file."""
    return _line(columns)


def digest(text: bytes) -> str:
    """SHA-256 of the file so far, which a checkpoint keeps."""
    return hashlib.sha256(text).hexdigest()


class History:
    """The rows of finished epochs, in memory and on disk."""

    def __init__(self, path: Path, progress: Progress) -> None:
        """Read the rows of the epochs that `progress` counts; drop later ones, which a crash may have left.

        Raises RunError where the file is missing or its rows are not those of `progress`.
        """
        self.path, epochs = path, progress.epoch
        with os_errors_as(RunError, "this can't be read", where=path, hint=_MEND):
            lines = path.read_bytes().splitlines(keepends=True)
            self._text = b"".join(lines[: epochs + 1])
            if digest(self._text) != progress.history:
                raise RunError(
                    f"its first {epochs} rows are not those this run wrote.",
                    where=str(path),
                    hint=_MEND,
                )
            if len(lines) > epochs + 1:
                write_whole(path, self._text)
            _forget_later(path.with_name(TIMES), epochs)
        rows = csv.DictReader(io.StringIO(self._text.decode()))
        self.rows: list[Row] = [{name: _number(text) for name, text in row.items()} for row in rows]

    @property
    def digest(self) -> str:
        """The digest of all rows, for the next checkpoint."""
        return digest(self._text)

    def add(self, row: Row) -> None:
        """Add a row, in memory; `write` brings it to disk."""
        self._text += _line(row.values())
        self.rows.append(row)

    def write(self, row: Row, times: Row) -> None:
        """Write a row that was added, and flush it to disk, and its row of times.csv. Raises RunError."""
        clock = self.path.with_name(TIMES)
        with os_errors_as(RunError, "this can't be written", where=self.path):
            if not clock.exists():
                append_line(clock, header(list(times)))
            append_line(clock, _line(times.values()))
            append_line(self.path, _line(row.values()))


def columns(manifest: Manifest, held_out: str) -> list[str]:
    """The columns of metrics.csv, in the order in which the loop writes a row.

    `held_out` is ``test`` or ``validation``, the part of the data that was evaluated.
    """
    names = [metric.name for metric in manifest.scalar_metrics]
    measured = [f"{part}_{name}" for part in ("train", held_out) for name in names]
    return ["epoch", "step", *measured, "lr_scale", "skipped"]


def _forget_later(clock: Path, epochs: int) -> None:
    """Drop the rows of times.csv that are not of the first `epochs`: those epochs are trained again."""
    if not clock.exists():
        return
    lines = clock.read_bytes().splitlines(keepends=True)
    kept = [line for line in lines[1:] if (epoch := line.split(b",")[0]).isdigit() and int(epoch) <= epochs]
    if len(kept) < len(lines) - 1:
        write_whole(clock, b"".join([*lines[:1], *kept]))


def _line(values: Iterable[Any]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(values)
    return text.getvalue().encode()


def _number(text: str) -> float:
    return int(text) if text.lstrip("-").isdigit() else float(text)
