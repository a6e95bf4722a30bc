"""Tar shards in the layout of WebDataset: ``train-0000.tar``, …, ``test-0000.tar``, … (or ``val``).

The members of an example follow one another and share their name up to its first dot: ``000017.jpg`` and its
label ``000017.cls``, a number or a name, or ``000017.json`` with one under ``label``, ``cls`` or ``class``.
Images are read where they lie in the shards, in any order. Source: the WebDataset format of T. Breuel and
others, https://github.com/webdataset/webdataset.
"""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from cnnc.data.assembling import LARGEST_LABEL, Survey, assemble, cut
from cnnc.data.catalogue import ROW, Problem
from cnnc.data.dataset import Dataset, Wanted, natural_order
from cnnc.data.files import file_size, reading
from cnnc.data.images import FORMATS
from cnnc.data.index import Index, indexed, no_stamps, stamp
from cnnc.data.looking import look_at, wrong
from cnnc.data.streamed import Decoding, default_workers
from cnnc.errors import DataError

PATTERNS = ("*train*.tar", "*test*.tar")
LABELS = ("cls", "json")
LABEL_KEYS = ("label", "cls", "class")
LABEL_BYTES = 2**16
"""Larger members hold no label."""


@dataclass
class _Example:
    """The members of one example, by their extension, as (offset, size)."""

    key: str
    members: dict[str, tuple[int, int]] = field(default_factory=dict)


def read_shards(folder: Path, wanted: Wanted) -> Dataset:
    """Read the tar shards in `folder`. Raises DataError."""
    return assemble(survey_shards(folder, wanted), wanted)


def survey_shards(folder: Path, wanted: Wanted) -> Survey:
    """All that is in the shards, good and bad. Raises DataError where a shard can't be read."""
    train, test = split_files(folder, ".tar")
    workers = default_workers() if wanted.workers is None else wanted.workers
    return survey_files(folder, "tar shards", train, test, partial(_learn, folder, Decoding(workers)))


def split_files(folder: Path, suffix: str) -> tuple[list[str], list[str]]:
    """The names of the training files in natural order, and of the test files. Raises DataError."""
    names = sorted((path.name for path in folder.glob(f"*{suffix}")), key=natural_order)
    parts = {word: [name for name in names if word in name.lower()] for word in ("train", "test", "val")}
    train, test = parts["train"], parts["test"] or parts["val"]
    for word, found in (("train", train), ("test", test)):
        if not found:
            raise DataError(
                f"this folder holds no file named *{word}*{suffix}.",
                where=str(folder),
                hint=f"Training files have 'train' in their names, test files 'test' or 'val', such as "
                f"{word}-0000{suffix}.",
            )
    if both := set(train) & set(test):
        raise DataError(
            "this name says both train and test.", where=str(folder / min(both)), hint="Rename the file."
        )
    return train, test


def survey_files(
    folder: Path,
    title: str,
    train: Sequence[str],
    test: Sequence[str],
    learn: Any,
    names: Sequence[str] = (),
    decoder: str = "image",
) -> Survey:
    """The survey of files that hold many examples each, by way of their index."""
    files = [*train, *test]
    stamps = []
    for name in files:
        file_size(folder / name)
        stamps.append(stamp((folder / name).stat()))
    index = indexed(folder, title.replace(" ", "-"), files, np.array(stamps, np.int64), learn)
    splits = {
        "train": cut(index, folder, 0, len(train), decoder=decoder),
        "test": cut(index, folder, len(train), len(files), decoder=decoder),
    }
    where = {
        name: str(folder / some[0]) + (f" … {some[-1]}" if len(some) > 1 else "")
        for name, some in (("train", train), ("test", test))
    }
    problems = [
        Problem(where[name], "this holds no examples.") for name, found in splits.items() if not len(found)
    ]
    numbered = all(name.isdecimal() for name in index.classes)
    return Survey(title, folder, splits, problems, numbered, tuple(names), where)


def label_text(value: object) -> str:
    """A label as the name of its class: a name, or a number as such. Raises ValueError."""
    if isinstance(value, int | np.integer) and not isinstance(value, bool):
        if not 0 <= value <= LARGEST_LABEL:
            raise ValueError(f"its label is {value}")
        return str(int(value))
    if not isinstance(value, str):
        raise ValueError(f"its label is {str(value)[:40]}")
    text = value.strip()
    if not text or len(text) > 200 or not text.isprintable():
        raise ValueError(f"its label is {text[:40]!r}")
    return label_text(int(text)) if text.isdecimal() and text.isascii() and len(text) < 10 else text


class Rows:
    """Rows of examples under construction, from files that hold many."""

    def __init__(self) -> None:
        self.rows: list[tuple[int, int, int, int, int]] = []
        self.names: list[str] = []
        self.problems: list[str] = []
        self.classes: dict[str, int] = {}
        self.counts: list[int] = []

    def add(
        self, name: str, offset: int, size: int, label: str | None, problem: str = "", checksum: int = 0
    ) -> None:
        """One example of the file that `counts` comes to next; without a label it has a problem."""
        number = -1 if label is None else self.classes.setdefault(label, len(self.classes))
        self.rows.append((len(self.counts), offset, size, number, checksum))
        self.names.append(name)
        self.problems.append(problem)

    @contextmanager
    def file(self) -> Iterator[None]:
        """What is added in here are the examples of one file. A DataError becomes a problem of the file."""
        before = len(self.rows)
        try:
            yield
        except DataError as error:
            self.add("", 0, 0, None, wrong(error.what, error.hint, "data"))
        self.counts.append(len(self.rows) - before)

    def index(self, files: Sequence[str]) -> Index:
        """All that was added."""
        rows = np.zeros(len(self.rows), ROW)
        for position, column in enumerate(("file", "offset", "size", "label", "crc")):
            rows[column] = [row[position] for row in self.rows]
        counts = np.array(self.counts, np.int64)
        return Index(
            files, no_stamps(len(files)), counts, rows, self.names, self.problems, list(self.classes)
        )


def look_at_index(index: Index, paths: Sequence[str], decoding: Decoding) -> Index:
    """The index with a look at each of its images that has no problem so far; `paths` are its files."""
    sound = np.array([not problem for problem in index.problems], bool)
    looked = index.rows[sound]
    columns = (looked[name].tolist() for name in ("file", "offset", "size"))
    places = [(paths[file], offset, size) for file, offset, size in zip(*columns, strict=True)]
    found = look_at(looked, places, decoding)
    decoding.close()
    index.rows[sound] = looked
    problems = list(index.problems)
    for number, problem in zip(np.flatnonzero(sound).tolist(), found, strict=True):
        problems[number] = problem
    return Index(index.files, index.stamps, index.counts, index.rows, index.names, problems, index.classes)


def _learn(folder: Path, decoding: Decoding, files: Sequence[str]) -> Index:
    """Go through the headers of each shard, and look at each image."""
    rows = Rows()
    for name in files:
        path = folder / name
        with rows.file(), reading(path, "tar file"), path.open("rb") as file:
            for example in _examples(path):
                _add(rows, file, example)
    return look_at_index(rows.index(files), [str(folder / name) for name in files], decoding)


def _add(rows: Rows, file: BinaryIO, example: _Example) -> None:
    image = next((extension for extension in example.members if f".{extension}" in FORMATS), None)
    if image is None:
        rows.add(example.key, 0, 0, None, wrong("this example has no image.", _IMAGES))
        return
    label, problem = None, ""
    try:
        label = _label(file, example)
    except (ValueError, RecursionError) as error:
        problem = wrong(f"this example can't be used: {error}.", _LABELS)
    rows.add(f"{example.key}.{image}", *example.members[image], label, problem)


_IMAGES = f"Images are members called {', '.join(f'KEY{suffix}' for suffix in FORMATS)}."
_LABELS = "A label is a member KEY.cls with a number or a name, or KEY.json with one under 'label'."


def _examples(path: Path) -> Iterator[_Example]:
    """The examples of a shard. Raises ValueError where it is damaged."""
    size = path.stat().st_size
    example = _Example("")
    with tarfile.open(path, "r:") as archive:
        while (member := archive.next()) is not None:
            vars(archive)["members"] = []  # which otherwise grow with the shard
            if not member.isreg() or member.issparse():
                continue
            if member.offset_data + member.size > size:
                raise ValueError(f"it ends in the middle of {member.name}")
            folder, slash, name = member.name.rpartition("/")
            key, _, extension = name.partition(".")
            if not key or not extension:
                continue
            key = f"{folder}{slash}{key}".replace("\0", "")
            if key != example.key:
                if example.members:
                    yield example
                example = _Example(key)
            example.members[extension.lower()] = (member.offset_data, member.size)
        end = archive.offset
    with path.open("rb") as file:  # tarfile takes a damaged header for the end
        file.seek(end)
        mark = file.read(tarfile.BLOCKSIZE)
    if any(mark):
        raise ValueError(f"its header at byte {end} is damaged")
    if not mark:
        raise ValueError("it ends without the empty block that marks the end")
    if example.members:
        yield example


def _label(file: BinaryIO, example: _Example) -> str:
    extension = next((name for name in LABELS if name in example.members), None)
    if extension is None:
        raise ValueError("it has no label")
    offset, size = example.members[extension]
    if size > LABEL_BYTES:
        raise ValueError(f"its .{extension} has {size} bytes")
    file.seek(offset)
    text = file.read(size).decode()
    if extension == "cls":
        return label_text(text)
    record = json.loads(text)
    key = next((key for key in LABEL_KEYS if isinstance(record, dict) and key in record), None)
    if key is None:
        raise ValueError(f"its .json has none of {', '.join(LABEL_KEYS)}")
    return label_text(record[key])
