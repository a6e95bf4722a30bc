"""CIFAR-10 and CIFAR-100 in their binary form, as the files of A. Krizhevsky's page unpack.

A record is the label (for CIFAR-100 the coarse and then the fine one, which is taken) and 3,072 bytes: the
red, green and blue plane, 32×32 each, row by row. Source: https://www.cs.toronto.edu/~kriz/cifar.html.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from cnnc.data.assembling import Survey, assemble
from cnnc.data.dataset import Dataset, Wanted, natural_order, numerals
from cnnc.data.files import ensure_fits_memory, file_size, reading
from cnnc.data.index import Index
from cnnc.data.looking import wrong
from cnnc.data.shards import Rows, survey_files
from cnnc.errors import DataError

SIDE = 32
PIXELS = 3 * SIDE * SIDE
CLASSES_10 = (
    "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
)  # fmt: skip


@dataclass(frozen=True)
class _Kind:
    """Which files a version has, the bytes of labels before each image, and the file of class names."""

    train: str
    test: str
    labels: int
    names: str
    classes: tuple[str, ...]


KINDS = (
    _Kind("data_batch_*.bin", "test_batch.bin", 1, "batches.meta.txt", CLASSES_10),
    _Kind("train.bin", "test.bin", 2, "fine_label_names.txt", numerals(100)),
)
PATTERNS = ("data_batch_*.bin", "test_batch.bin", "train.bin", "test.bin")


def read_cifar(folder: Path, wanted: Wanted) -> Dataset:
    """Read the binary files in `folder`. Raises DataError."""
    return assemble(survey_cifar(folder, wanted), wanted)


def survey_cifar(folder: Path, wanted: Wanted) -> Survey:
    """All that is in the binary files. Raises DataError where one can't be read."""
    kind = next((kind for kind in KINDS if any(folder.glob(kind.train))), KINDS[0])
    train = sorted((path.name for path in folder.glob(kind.train)), key=natural_order)
    test = [path.name for path in folder.glob(kind.test)]
    for pattern, found in ((kind.train, train), (kind.test, test)):
        if not found:
            raise DataError(f"this folder lacks {pattern}.", where=str(folder), hint="Unpack it anew.")
    names = _names(folder / kind.names) or kind.classes
    learn = partial(_learn, folder, kind, names)
    return survey_files(folder, "CIFAR files", train, test, learn, names, "planes")


def _names(path: Path) -> tuple[str, ...]:
    if not path.is_file():
        return ()
    with reading(path, "text file"):
        return tuple(line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip())


def _learn(folder: Path, kind: _Kind, names: Sequence[str], files: Sequence[str]) -> Index:
    rows = Rows()
    for name in files:
        with rows.file():
            for number, (label, checksum) in enumerate(_records(folder / name, kind)):
                offset = number * (kind.labels + PIXELS) + kind.labels
                problem = ""
                if label >= len(names):
                    problem = wrong(f"its label is {label}, the classes are 0 to {len(names) - 1}.")
                known = None if problem else str(label)
                rows.add(f"record {number}", offset, PIXELS, known, problem, checksum)
    index = rows.index(files)
    index.rows["height"] = index.rows["width"] = SIDE
    index.rows["mode"] = b"RGB"
    return index


def _records(path: Path, kind: _Kind) -> Iterator[tuple[int, int]]:
    """Label and checksum of each record."""
    record = kind.labels + PIXELS
    ensure_fits_memory(size := file_size(path), path)
    with reading(path, "CIFAR file"):
        if size % record:
            raise ValueError(f"its {size} bytes are no whole number of records of {record}")
        for data in np.fromfile(path, np.uint8).reshape(-1, record):
            yield int(data[kind.labels - 1]), zlib.crc32(data[kind.labels :].tobytes())
