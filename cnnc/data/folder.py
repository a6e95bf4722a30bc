"""Image folders: ``train/<class>/…`` and ``test/<class>/…``, one image a file.

Classes come in natural order of their folders' names (``2`` before ``10``). An empty folder is an error, or a
class without examples where bad images are skipped. Images are turned upright by their EXIF orientation. They
become grayscale (ITU-R 601 luma) or RGB as the network takes, or RGB where any file has colour or a palette;
transparency is dropped, and of 16 bits the upper 8 stay. Images of other sizes than the network's are an
error, or are resized, as the graph's preprocessing says.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np

from cnnc.data.assembling import Survey, assemble, cut
from cnnc.data.catalogue import ROW, Kind, Problem
from cnnc.data.dataset import Dataset, Wanted, natural_order
from cnnc.data.files import reading
from cnnc.data.images import FORMATS
from cnnc.data.index import Index, indexed, no_stamps, stamp
from cnnc.data.looking import look_at, wrong
from cnnc.data.streamed import Decoding, default_workers
from cnnc.errors import DataError

PATTERNS = ("train/", "test/")
CLUTTER = {"thumbs.db", "desktop.ini"}
"""Files that file managers leave behind; they and hidden files are passed over."""


@dataclass
class _Split:
    """The files of a split, in their order, as paths below the data set's folder, with their stamps.

    `classes` are those with files, `empty` those that are sound and have none.
    """

    classes: list[str] = field(default_factory=list)
    empty: list[str] = field(default_factory=list)
    files: list[str] = field(default_factory=list)
    stamps: list[tuple[int, int, int, int]] = field(default_factory=list)


def read_folders(folder: Path, wanted: Wanted) -> Dataset:
    """Read the image folders in `folder`. Raises DataError."""
    return assemble(survey_folders(folder, wanted), wanted)


def survey_folders(folder: Path, wanted: Wanted) -> Survey:
    """All that is in the image folders, good and bad. Raises DataError only where nothing can be read."""
    problems: list[Problem] = []
    splits = {name: _walk(folder, name, problems) for name in ("train", "test")}
    empty = {name for split in splits.values() for name in split.empty}
    train, test = (set(split.classes) for split in splits.values())
    if train and test and (unmatched := sorted((train ^ test) - empty, key=natural_order)):
        some = f"{', '.join(unmatched[:5])}{' …' if len(unmatched) > 5 else ''}"
        what = f"train and test hold different classes: only one of them has {some}."
        problems.append(Problem(str(folder), what))
    files = splits["train"].files + splits["test"].files
    stamps = np.array(splits["train"].stamps + splits["test"].stamps, np.int64).reshape(-1, 4)
    decoding = Decoding(default_workers() if wanted.workers is None else wanted.workers)
    index = indexed(folder, "folder", files, stamps, partial(_learn, folder, decoding))
    decoding.close()
    border = len(splits["train"].files)
    catalogues = {
        "train": cut(index, folder, 0, border),
        "test": cut(index, folder, border, len(files)),
    }
    return Survey("image folders", folder, catalogues, problems, empty=tuple(sorted(empty - train - test)))


def _learn(folder: Path, decoding: Decoding, files: Sequence[str]) -> Index:
    """Look at each file: one example."""
    rows = np.zeros(len(files), ROW)
    rows["file"] = np.arange(len(files))
    names = [file.split("/")[1] for file in files]
    classes = list(dict.fromkeys(names))
    number = {name: index for index, name in enumerate(classes)}
    rows["label"] = [number[name] for name in names]
    problems, places = [], []
    for index, file in enumerate(files):
        path = os.path.join(folder, file)
        size, problem = _regular(path)
        rows["size"][index] = size
        problems.append(problem)
        if not problem:
            places.append((path, 0, size))
    sound = np.array([not problem for problem in problems], bool)
    looked = rows[sound]
    found = look_at(looked, places, decoding)
    rows[sound] = looked
    for index, problem in zip(np.flatnonzero(sound).tolist(), found, strict=True):
        problems[index] = problem
    return Index(files, no_stamps(len(files)), np.ones(len(files), np.int64), rows, [], problems, classes)


def _regular(path: str) -> tuple[int, str]:
    """The size of a file that may be an image, or what is wrong with it."""
    try:
        status = os.stat(path)
    except FileNotFoundError:
        return 0, wrong("there is no such file.", "It may be a link that leads nowhere.")
    except OSError as error:
        return 0, wrong(f"this can't be read: {error.strerror}.")
    if not stat.S_ISREG(status.st_mode):
        return 0, wrong("this is not a regular file.")
    if not status.st_size:
        return 0, wrong("this file is empty.", "Get a fresh copy.")
    return status.st_size, ""


def _walk(root: Path, name: str, problems: list[Problem]) -> _Split:
    """The files of a split; what is wrong with its layout goes to `problems`."""
    found, split = _Split(), root / name

    def wrong(path: Path, what: str, hint: str = "", kind: Kind = "data") -> None:
        problems.append(Problem(str(path), what, hint, kind))

    if not split.is_dir():
        wrong(split, "there is no such folder.", "Image folders come as train and test.")
        return found
    for entry in _entries(split, problems):
        folder = split / entry.name
        if not _is_dir(entry):
            wrong(folder, "this is no folder.", f"Images lie in {name}/<class>/, by class.")
            continue
        before = len(problems)
        files = _entries(folder, problems)
        if not files and len(problems) == before:
            hint = "--on-bad-image skip keeps the class, and trains without it."
            wrong(folder, "this class holds no image.", hint, "class")
        begun = len(found.files)
        for file in files:
            if _is_dir(file):
                wrong(
                    folder / file.name, "this is a folder among images.", "Images lie directly in <class>/."
                )
            elif os.path.splitext(file.name)[1].lower() not in FORMATS:
                hint = f"Known suffixes: {', '.join(FORMATS)}. Convert it, or move it away."
                wrong(folder / file.name, "this is no image file cnnc reads.", hint, "image")
            else:
                found.files.append(f"{name}/{entry.name}/{file.name}")
                found.stamps.append(_stamp(file))
        if len(found.files) > begun:
            found.classes.append(entry.name)
        elif not any(problem.kind == "data" for problem in problems[before:]):
            found.empty.append(entry.name)
    if not found.files and not problems:
        wrong(split, "this folder holds no class.", "Images lie in <class>/ below it.")
    return found


def _entries(folder: Path, problems: list[Problem]) -> list[os.DirEntry[str]]:
    try:
        with reading(folder, "folder"), os.scandir(folder) as entries:
            found = [entry for entry in entries if entry.name[0] != "." and entry.name.lower() not in CLUTTER]
    except DataError as error:
        problems.append(Problem.of(error, "data"))
        return []
    return sorted(found, key=lambda entry: natural_order(entry.name))


def _is_dir(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads to itself
        return False


def _stamp(entry: os.DirEntry[str]) -> tuple[int, int, int, int]:
    try:
        return stamp(entry.stat())
    except OSError:
        return -1, -1, -1, -1
