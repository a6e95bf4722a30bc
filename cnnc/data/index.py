"""The index of a large data set: what was learnt of its files, kept in the cache folder between runs.

An index is only believed file by file: of a file whose size, identity or times differ from the index, or
which changed so shortly before the index was written that its time can't tell, everything is learnt anew.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cnnc.data.catalogue import ROW
from cnnc.data.download import cache_folder
from cnnc.errors import DataError

VERSION = 1
KEPT_FROM = 1000
"""Smaller data sets have no index: looking at them again takes no time."""
GRAIN = 2_000_000_000
"""Nanoseconds within which two changes of a file may get the same time, on the coarsest file systems."""
Stamps = npt.NDArray[np.int64]
"""[files, 4]: size in bytes, inode, and the times of change of content and of status in nanoseconds. The last
two tell a file that was moved to the place of another with the time of that one."""


@dataclass(frozen=True, eq=False)
class Index:
    """Rows of examples, those of a file together and in the files' order, with what belongs to them.

    `files` are paths relative to the data set's root, `stamps` theirs; `counts` the number of rows of each.
    `names` are the examples' names in their files (none where a file is an example), `problems` what is wrong
    with an example, or nothing; `classes` what the labels of the rows mean.
    """

    files: Sequence[str]
    stamps: Stamps
    counts: npt.NDArray[np.int64]
    rows: npt.NDArray[np.void]
    names: Sequence[str]
    problems: Sequence[str]
    classes: Sequence[str]


def path_of(root: Path, kind: str) -> Path:
    """The file that keeps the index of the data set at `root`. Raises DataError where there is no cache."""
    whole = hashlib.sha256(os.fsencode(root.resolve())).hexdigest()[:32]
    return cache_folder() / "index" / f"{kind}-{whole}.npz"


def stamp(status: os.stat_result) -> tuple[int, int, int, int]:
    """What tells that a file has changed."""
    return status.st_size, status.st_ino, status.st_mtime_ns, status.st_ctime_ns


def no_stamps(count: int) -> Stamps:
    """Stamps that are still to be filled in."""
    return np.zeros((count, 4), np.int64)


def load(path: Path) -> Index | None:
    """The index in `path`, or None where there is none that is whole."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as data:
            if int(data["version"]) != VERSION or data["rows"].dtype != ROW:
                return None
            texts = {name: _split(data[name].tobytes()) for name in ("files", "names", "problems", "classes")}
            index = Index(stamps=data["stamps"], counts=data["counts"], rows=data["rows"], **texts)
    except Exception:  # damaged in whatever way, it is written anew
        return None
    count = len(index.rows)
    whole = (
        len(index.files) == len(index.stamps) == len(index.counts)
        and int(index.counts.sum()) == count
        and len(index.names) in (0, count)
        and len(index.problems) == count
    )
    return index if whole else None


def save(path: Path, index: Index) -> None:
    """Keep `index` in `path`, whole or not at all; where that can't be, the next start takes longer."""
    stamps = index.stamps.copy()
    recent = stamps[:, 2:].max(axis=1, initial=0) > time.time_ns() - GRAIN
    stamps[recent, 1] = -1  # it may change once more without being noticed
    texts: dict[str, Any] = {
        name: _joined(getattr(index, name)) for name in ("files", "names", "problems", "classes")
    }
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".index.")
        try:
            with os.fdopen(handle, "wb") as file:
                arrays: dict[str, Any] = {"stamps": stamps, "counts": index.counts, "rows": index.rows}
                np.savez(file, allow_pickle=False, version=np.array(VERSION), **arrays, **texts)
            os.replace(temporary, path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise


def indexed(
    root: Path,
    kind: str,
    files: Sequence[str],
    stamps: Stamps,
    learn: Callable[[Sequence[str]], Index],
) -> Index:
    """The index of `files` below `root`: from the cache as far as it holds, the rest by `learn`.

    Files in another order, or gone, cost nothing; `learn` gets those that are new or changed.
    """
    path = None
    with contextlib.suppress(DataError):
        path = path_of(root, kind)
    known = load(path) if path else None
    if known is not None and list(known.files) == list(files) and np.array_equal(known.stamps, stamps):
        return known
    place = {name: number for number, name in enumerate(known.files)} if known else {}
    fresh = [
        number
        for number, name in enumerate(files)
        if name not in place or not np.array_equal(known.stamps[place[name]], stamps[number])  # type: ignore[union-attr]
    ]
    learnt = learn([files[number] for number in fresh])
    index = _merged(files, stamps, known, place, learnt, fresh)
    if path and len(index.rows) >= KEPT_FROM:
        save(path, index)
    return index


def _merged(
    files: Sequence[str],
    stamps: Stamps,
    known: Index | None,
    place: dict[str, int],
    learnt: Index,
    fresh: Sequence[int],
) -> Index:
    """The rows of `files` in their order, of each from the index that knows it."""
    if known is None or len(fresh) == len(files):
        return Index(files, stamps, learnt.counts, learnt.rows, learnt.names, learnt.problems, learnt.classes)
    classes = list(dict.fromkeys([*known.classes, *learnt.classes]))
    number_of = {name: number for number, name in enumerate(classes)}
    parts = []
    for index in (known, learnt):
        rows = index.rows.copy()
        if len(index.classes):
            rows["label"] = np.array([number_of[name] for name in index.classes])[rows["label"]]
        starts = np.concatenate([[0], np.cumsum(index.counts)])
        parts.append((index, rows, starts))
    of_learnt = {number: position for position, number in enumerate(fresh)}
    counts, tables = [], []
    names: list[str] = []
    problems: list[str] = []
    for number, name in enumerate(files):
        part = number in of_learnt
        index, rows, starts = parts[part]
        at = of_learnt[number] if part else place[name]
        begin, end = int(starts[at]), int(starts[at + 1])
        table = rows[begin:end].copy()
        table["file"] = number
        tables.append(table)
        counts.append(end - begin)
        names += index.names[begin:end]
        problems += index.problems[begin:end]
    rows = np.concatenate(tables) if tables else np.empty(0, ROW)
    return Index(files, stamps, np.array(counts, np.int64), rows, names, problems, classes)


def _joined(texts: Sequence[str]) -> npt.NDArray[np.uint8]:
    """Texts as bytes, each with a zero behind it."""
    return np.frombuffer(b"".join(os.fsencode(text) + b"\0" for text in texts), np.uint8)


def _split(data: bytes) -> list[str]:
    return [os.fsdecode(text) for text in data.split(b"\0")[:-1]] if data else []
