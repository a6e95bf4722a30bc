"""Confusion matrices: of the last evaluation, one for each output that counts one, as CSV files."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cnnc.bundle import Manifest
from cnnc.runtime.files import file_names, write_whole

CONFUSION = "confusion_matrix"


@dataclass(frozen=True)
class Matrix:
    """How often each label (rows) got each answer (columns). `classes` names them, or is empty."""

    name: str
    counts: Sequence[Sequence[int]]
    classes: Sequence[str]

    def csv(self) -> str:
        """A line a label, a column an answer; without a name for each class, numbers are."""
        named = len(self.classes) == len(self.counts)
        names = self.classes if named else [str(label) for label in range(len(self.counts))]
        text = io.StringIO()
        lines = csv.writer(text, lineterminator="\n")
        lines.writerow(["label", *names])
        lines.writerows([label, *row] for label, row in zip(names, self.counts, strict=True))
        return text.getvalue()


def matrices_of(manifest: Manifest, sums: Mapping[str, tuple[Any, float]]) -> list[Matrix]:
    """Those in the `sums` of an evaluation."""
    heads = {f"{head.name}_{CONFUSION}".lstrip("_"): head for head in manifest.heads}
    return [Matrix(name, sums[name][0], head.classes) for name, head in heads.items() if name in sums]


def write_matrices(folder: Path, matrices: Sequence[Matrix]) -> None:
    """Write each to NAME.csv in `folder`. Raises OSError."""
    for matrix, name in zip(matrices, file_names(matrix.name for matrix in matrices), strict=True):
        write_whole(folder / f"{name}.csv", matrix.csv().encode("utf-8", "surrogateescape"))
