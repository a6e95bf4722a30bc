"""All that is wrong with a data set, in one pass: its layout, every image decoded, and whether it fits."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from cnnc.bundle import Manifest
from cnnc.data.assembling import Survey, assemble, used_classes
from cnnc.data.catalogue import Catalogue, Problem
from cnnc.data.checking import check, check_finite
from cnnc.data.dataset import Dataset, Split, Wanted
from cnnc.data.images import DEEP_MODES
from cnnc.data.loading import NAMED, format_of, load, wanted_by
from cnnc.data.looking import look_at, problem_of
from cnnc.data.streamed import Decoding, default_workers
from cnnc.errors import DataError

Done = Callable[[int, int], None]


@dataclass(frozen=True)
class SplitReport:
    """The numbers of images of a split: all, bad, and of each class, each size and each kind of pixels."""

    images: int
    bad: int
    classes: dict[str, int]
    sizes: dict[str, int]
    modes: dict[str, int]


@dataclass(frozen=True)
class DataReport:
    """What a data set holds, and all that is wrong with it. `ok` says that training would read all of it."""

    where: str
    title: str
    splits: dict[str, SplitReport]
    problems: Sequence[Problem] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong; notes are no faults."""
        return not self.faults

    @property
    def faults(self) -> list[Problem]:
        """The problems that stop training, or leave images out."""
        return [problem for problem in self.problems if problem.kind != "note"]

    def record(self) -> dict[str, Any]:
        """The report as one JSON object."""
        return {
            "data": self.where,
            "format": self.title,
            "ok": self.ok,
            "splits": {name: asdict(split) for name, split in self.splits.items()},
            "problems": [asdict(problem) for problem in self.problems],
        }


def examine(
    spec: str | os.PathLike[str],
    manifest: Manifest | None = None,
    *,
    workers: int | None = None,
    done: Done = lambda count, of: None,
) -> DataReport:
    """Look at all of a data set, as `cnnc.data.load` takes it, and at whether it fits a network.

    Every image is decoded, by `workers` processes (None: one a processor); `done` is told how far that is.
    Problems are collected, never raised, but for what is no data set at all (DataError).
    """
    wanted = wanted_by(manifest) if manifest else Wanted()
    count = default_workers() if workers is None else workers
    wanted = Wanted(wanted.classes, wanted.channels, wanted.size, wanted.preprocessing, "skip", count)
    form = None if spec in NAMED else format_of(Path(spec))
    if form is None or form.survey is None:
        return _arrays(str(spec), form.title if form else "built in or downloaded", manifest, wanted)
    survey = form.survey(Path(spec), wanted)
    _decode_all(survey, Decoding(count), done)
    problems = [*survey.problems]
    for catalogue in survey.splits.values():
        problems += [problem for _, problem in sorted(catalogue.problems.items())]
    problems += _beside_images(survey)
    if manifest is not None:
        problems += _misfits(survey, manifest, wanted)
    splits = {name: _split_report(catalogue, survey.empty) for name, catalogue in survey.splits.items()}
    return DataReport(str(spec), survey.title, splits, _each_once(problems))


def _decode_all(survey: Survey, decoding: Decoding, done: Done) -> None:
    """Decode each image that has no problem so far, and add what comes of it to the catalogues."""
    total, before = sum(map(len, survey.splits.values())), 0
    for catalogue in survey.splits.values():
        if catalogue.decoder != "image":
            continue
        sound = np.setdiff1d(np.arange(len(catalogue)), list(catalogue.problems))
        rows, places = catalogue.rows[sound], catalogue.places(sound)

        def told(count: int, start: int = before) -> None:
            done(start + count, total)

        found = look_at(rows, places, decoding, whole=True, done=told)
        for index, text in zip(sound.tolist(), found, strict=True):
            if text:
                catalogue.problems[index] = problem_of(text, catalogue.where(index))
        before += len(catalogue)
    decoding.close()


def _split_report(catalogue: Catalogue, empty: Sequence[str]) -> SplitReport:
    rows = catalogue.rows
    classes: Counter[str] = Counter(dict.fromkeys([*used_classes(catalogue), *empty], 0))
    classes.update(catalogue.classes[label] for label in rows["label"].tolist() if label >= 0)
    seen = rows[rows["height"] > 0]
    sizes = Counter(zip(seen["height"].tolist(), seen["width"].tolist(), strict=True))
    modes = Counter(mode.decode() for mode in seen["mode"].tolist())
    named = {f"{height}×{width}": count for (height, width), count in sizes.most_common()}
    return SplitReport(len(rows), len(catalogue.problems), dict(classes), named, dict(modes.most_common()))


def _beside_images(survey: Survey) -> list[Problem]:
    """What a person should know of classes and sizes, though it keeps nothing from training."""
    where = str(survey.root)
    notes = []
    train, test = (set(used_classes(survey.splits[name])) for name in ("train", "test"))
    if len(train) == 1:
        notes.append(f"the training images are all of one class, '{min(train)}': there is nothing to learn.")
    if (lacking := sorted(test - train)) and not any(problem.kind == "data" for problem in survey.problems):
        notes.append(f"test has classes that train lacks: {', '.join(lacking[:5])}.")
    rows = np.concatenate([catalogue.rows for catalogue in survey.splits.values()])
    rows = rows[rows["height"] > 0]
    if len(rows):
        sizes = np.unique(rows[["height", "width"]])
        if len(sizes) > 1:
            least, most = (f"{reduce(rows['height'])}×{reduce(rows['width'])}" for reduce in (np.min, np.max))
            notes.append(
                f"the images have {len(sizes):,} sizes, from {least} to {most} (height × width): a network "
                'takes one, and resizes where its preprocessing says so, such as Tensor(…, resize="crop").'
            )
        if deep := sum(mode.decode() in DEEP_MODES for mode in rows["mode"].tolist()):
            notes.append(f"images of 16 bits a pixel, whose upper 8 are used: {deep:,}.")
    return [Problem(where, note, kind="note") for note in notes]


def _misfits(survey: Survey, manifest: Manifest, wanted: Wanted) -> list[Problem]:
    """What keeps the data from the network, beside what is wrong with it anyway."""
    try:
        dataset = assemble(survey, wanted)
        check(dataset, manifest)
    except DataError as error:
        return [Problem.of(error, "data")]
    found = [problem for split in (dataset.train, dataset.test) for problem in split.problems]
    dataset.close()
    return found


def _arrays(spec: str, title: str, manifest: Manifest | None, wanted: Wanted) -> DataReport:
    """The report on a data set that is read as a whole; its first fault ends the reading."""
    try:
        dataset = load(spec, classes=wanted.classes, channels=wanted.channels, size=wanted.size)
    except DataError as error:
        return DataReport(spec, title, {}, [Problem.of(error, "data")])
    problems = []
    for split in (dataset.train, dataset.test):
        try:
            check_finite(split.images, split.where)
        except DataError as error:
            problems.append(Problem.of(error, "data"))
    if manifest is not None and not problems:
        try:
            check(dataset, manifest)
        except DataError as error:
            problems.append(Problem.of(error, "data"))
    splits = {
        name: _array_report(split, dataset)
        for name, split in (("train", dataset.train), ("test", dataset.test))
    }
    if len(splits["train"].classes) == 1:
        note = "the training images are all of one class: there is nothing to learn."
        problems.append(Problem(dataset.train.where, note, kind="note"))
    return DataReport(spec, title, splits, problems)


def _array_report(split: Split, dataset: Dataset) -> SplitReport:
    classes: dict[str, int] = {}
    if split.labels.ndim == 1 and split.labels.dtype.kind in "iu":
        numbers, counts = np.unique(split.labels, return_counts=True)
        names = dataset.classes
        classes = {
            names[number] if 0 <= number < len(names) else str(number): count
            for number, count in zip(numbers.tolist(), counts.tolist(), strict=True)
        }
    count, channels, height, width = split.images.shape
    mode = f"{channels} channel{'s' * (channels != 1)} of {split.images.dtype}"
    return SplitReport(count, 0, classes, {f"{height}×{width}": count}, {mode: count})


def _each_once(problems: Sequence[Problem]) -> list[Problem]:
    return list(dict.fromkeys(problems))
