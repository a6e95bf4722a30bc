"""From catalogues of image files to a data set: the order of the classes, channels, size, and what is bad."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from cnnc.data.catalogue import Catalogue, Kind, Problem
from cnnc.data.dataset import Dataset, Split, Wanted, natural_order, numerals
from cnnc.data.images import COLOUR_MODES, Form, wrong_size
from cnnc.data.index import Index
from cnnc.data.looking import problem_of
from cnnc.data.streamed import MEMORY_LIMIT, Decoding, Images, ImageSplit, default_workers
from cnnc.errors import DataError, did_you_mean

LARGEST_LABEL = 2**16 - 1
"""No class has a larger number."""
SKIPPED: set[Kind] = {"image", "class"}
"""The problems that training may do without."""
CHECK = "`cnnc data check` lists all that is wrong with a data set."


@dataclass(frozen=True, eq=False)
class Survey:
    """All that was found in a data set of image files, good and bad.

    `splits` are the catalogues of ``train`` and ``test``. `problems` are those beside the examples: of the
    layout, of files that are no examples, and of classes that have none (`empty`), which count among the
    classes all the same. Where labels are numbers (`numbered`) a class is its number, and `names` may name
    them; else the names of the classes give their order.
    """

    title: str
    root: Path
    splits: dict[str, Catalogue]
    problems: Sequence[Problem] = ()
    numbered: bool = False
    names: tuple[str, ...] = ()
    where: dict[str, str] = field(default_factory=dict)
    empty: tuple[str, ...] = ()

    @property
    def classes(self) -> tuple[str, ...]:
        """The classes of both splits in their order: natural, or by number."""
        found = self.used
        if self.numbered:
            return self.names or numerals(max(map(int, found), default=-1) + 1)
        return tuple(sorted(found.union(self.empty), key=natural_order))

    @property
    def used(self) -> set[str]:
        """The classes that have examples."""
        return {name for catalogue in self.splits.values() for name in used_classes(catalogue)}


def used_classes(catalogue: Catalogue) -> list[str]:
    """The names of the classes that a catalogue has examples of."""
    return [catalogue.classes[label] for label in np.unique(catalogue.rows["label"]).tolist() if label >= 0]


def cut(index: Index, root: Path, begin: int, end: int, *, decoder: str = "image") -> Catalogue:
    """The catalogue of the files `begin` to `end` of an index."""
    ends = np.concatenate([[0], np.cumsum(index.counts)])
    first, last = int(ends[begin]), int(ends[end])
    catalogue = Catalogue(
        str(root),
        index.files,
        index.rows[first:last],
        tuple(index.classes),
        index.names[first:last],
        "planes" if decoder == "planes" else "image",
    )
    for number, text in enumerate(index.problems[first:last]):
        if text:
            catalogue.problems[number] = problem_of(text, catalogue.where(number))
    return catalogue


def assemble(survey: Survey, wanted: Wanted) -> Dataset:
    """The data set, for a network that wants this. Raises DataError where it can't be read as asked for.

    Its images are decoded at once where they are few and nobody asks for workers, and else when taken.
    """
    _stop_at([problem for problem in survey.problems if problem.kind == "data"], wanted)
    if survey.numbered:
        shown, order = survey.names or wanted.classes, numerals(LARGEST_LABEL + 1)
    else:
        shown = order = class_order(survey, wanted.classes)
    channels = wanted.channels or _channels(survey.splits.values())
    whole = wanted.preprocessing
    size, whose = wanted.size, "the network takes"
    if size is None:
        size, whose = _common_size(survey.splits.values(), whole.resize != "exact")
    form = Form(channels, size, whole.resize, whole.crop)
    workers = default_workers() if wanted.workers is None else wanted.workers
    decoding = Decoding(workers, wanted.on_bad_image)
    splits, problems = {}, [*survey.problems]
    for catalogue in survey.splits.values():
        if form.resize == "exact":
            note_sizes(catalogue, size, whose)
        problems += [problem for _, problem in sorted(catalogue.problems.items())]
    _stop_at(problems, wanted)
    for name, catalogue in survey.splits.items():
        images = Images(catalogue, form, decoding)
        labels = _labels(catalogue, order)
        where = survey.where.get(name, str(survey.root / name))
        splits[name] = ImageSplit(images, labels, where, catalogue.digest())
    ready = _into_memory(splits, wanted)
    skipped = tuple(problem for problem in survey.problems if problem.kind in SKIPPED)
    return Dataset(survey.root.resolve().name, ready["train"], ready["test"], shown, skipped)


def class_order(survey: Survey, wanted: tuple[str, ...]) -> tuple[str, ...]:
    """The network's class names in its order, where it has names; else those of the data."""
    if wanted == numerals(len(wanted)) and not set(survey.classes) <= set(wanted):
        return survey.classes
    unknown = sorted(survey.used.difference(wanted), key=natural_order)
    if not unknown:
        return wanted
    raise DataError(
        f"the network knows no class '{unknown[0]}'.",
        where=str(survey.root),
        hint=did_you_mean(unknown[0], wanted),
    )


def note_sizes(catalogue: Catalogue, size: tuple[int, int], whose: str) -> None:
    """Count the images of another (height, width) among the catalogue's problems."""
    rows = catalogue.rows
    other = (rows["height"] != size[0]) | (rows["width"] != size[1])
    for index in np.flatnonzero(other).tolist():
        found = (int(rows["height"][index]), int(rows["width"][index]))
        error = wrong_size(found, whose, size, catalogue.where(index))
        catalogue.problems.setdefault(index, Problem.of(error))


def _stop_at(problems: Sequence[Problem], wanted: Wanted) -> None:
    """Raise the first problem that stops training; where there are more, say how to see them."""
    skipped = SKIPPED if wanted.on_bad_image == "skip" else set()
    stopping = [problem for problem in problems if problem.kind not in {*skipped, "note"}]
    if not stopping:
        return
    first = next((problem for problem in stopping if problem.kind == "data"), stopping[0])
    hint = first.hint
    if len(stopping) > 1:
        hint = f"{hint} It is one of {len(stopping):,} such problems: {CHECK}".strip()
    raise DataError(first.what, where=first.where, hint=hint)


def _channels(catalogues: Iterable[Catalogue]) -> int:
    modes = {mode.decode() for catalogue in catalogues for mode in np.unique(catalogue.rows["mode"])}
    return 3 if modes & COLOUR_MODES else 1


def _common_size(catalogues: Iterable[Catalogue], resized: bool) -> tuple[tuple[int, int], str]:
    """The size of the first good image; where images are resized, the one that most have. And whose it is."""
    sizes: Counter[tuple[int, int]] = Counter()
    first = ""
    for catalogue in catalogues:
        rows = catalogue.rows[catalogue.rows["height"] > 0]
        sizes.update(zip(rows["height"].tolist(), rows["width"].tolist(), strict=True))
        if len(rows) and not first:
            first = catalogue.where(int(np.flatnonzero(catalogue.rows["height"])[0]))
    if not sizes:
        raise DataError("none of the images can be read.", hint=CHECK)
    size = sizes.most_common(1)[0][0] if resized else next(iter(sizes))
    return size, "most are" if resized else f"{first} is"


def _labels(catalogue: Catalogue, order: tuple[str, ...]) -> npt.NDArray[np.int64]:
    number = {name: index for index, name in enumerate(order)}
    table = np.array([*(number.get(name, 0) for name in catalogue.classes), 0], np.int64)
    return table[catalogue.rows["label"]]  # the last is that of bad examples without a label


def _into_memory(splits: dict[str, ImageSplit], wanted: Wanted) -> dict[str, Split]:
    """Decode data sets that are small, unless worker processes were asked for."""
    if wanted.workers or sum(split.images.nbytes for split in splits.values()) > MEMORY_LIMIT:
        return dict(splits)
    decoded: dict[str, Split] = {}
    for name, split in splits.items():
        images = split.images.decode_all()
        decoded[name] = split if split.problems else Split(images, split.labels, split.where, split.digest)
        split.images.decoding.close()
    return decoded
