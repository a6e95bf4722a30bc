"""metrics.csv: one row an epoch, written as it ends."""

from __future__ import annotations

import csv
import hashlib
import io
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from cnnc.errors import RunError
from cnnc.runtime.checkpoint import Progress
from cnnc.runtime.files import write_whole

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
        try:
            lines = path.read_bytes().splitlines(keepends=True)
            self._text = b"".join(lines[: epochs + 1])
            if digest(self._text) != progress.history:
                raise RunError(
                    f"its first {epochs} rows are not those this run wrote.",
                    where=str(path),
                    hint="Restore the file from a copy, or train anew.",
                )
            if len(lines) > epochs + 1:
                write_whole(path, self._text)
        except OSError as error:
            raise RunError(f"this can't be read: {error.strerror or error}.", where=str(path)) from error
        rows = csv.DictReader(io.StringIO(self._text.decode()))
        self.rows: list[Row] = [{name: _number(text) for name, text in row.items()} for row in rows]

    @property
    def digest(self) -> str:
        """The digest of all rows, for the next checkpoint."""
        return digest(self._text)

    def append(self, row: Row) -> None:
        """Add a row and flush it to disk. Raises RunError."""
        line = _line(row.values())
        try:
            with self.path.open("ab") as file:
                file.write(line)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise RunError(
                f"this can't be written: {error.strerror or error}.", where=str(self.path)
            ) from error
        self._text += line
        self.rows.append(row)


def _line(values: Iterable[Any]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(values)
    return text.getvalue().encode()


def _number(text: str) -> float:
    return int(text) if text.lstrip("-").isdigit() else float(text)
