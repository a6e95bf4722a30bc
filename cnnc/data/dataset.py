"""What every reader returns: a `Dataset` of two `Split`s, and what a reader may know of the network."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from cnnc.bundle import Preprocessing
from cnnc.data.catalogue import Problem

Array = npt.NDArray[Any]
OnBadImage = Literal["stop", "skip"]
LABELS = "y"


@dataclass(frozen=True, eq=False)
class Split:
    """Images and their labels, as stored.

    `images` is [n, C, H, W]: uint8 in 0…255, or float32 that is scaled already. `labels` is [n] of class
    indices (int64), [n, H, W] of them for pixels, or float32 targets [n, …]. `where` is the file or folder
    they came from, for messages, and `labels_where` that of the labels, if they have their own. Where
    images stay in files, `images` is no array but decodes them when it is indexed (see `cnnc.data.streamed`);
    only ``len()``, `take` and `stream` are needed to train. `digest` identifies the data where that takes no
    look at every pixel. `named` holds targets beside the labels, of networks with several outputs, each
    [n, …] under the name of its array, such as ``y_depth``; where data have only those, `labels` is [n, 0].
    """

    images: Array
    labels: Array
    where: str = ""
    digest: str = ""
    named: Mapping[str, Array] = field(default_factory=dict)
    labels_where: str = ""

    def __len__(self) -> int:
        return len(self.images)

    def take(self, indices: slice | npt.NDArray[np.int64]) -> Split:
        """The examples at `indices`, in that order: a view for a slice, a copy for an array of indices."""
        named = {name: array[indices] for name, array in self.named.items()}
        images, labels = self.images[indices], self.labels[indices]
        return Split(images, labels, self.where, named=named, labels_where=self.labels_where)

    @property
    def targets(self) -> dict[str, Array]:
        """Labels and further targets by the names of their arrays; the labels are ``y``."""
        own = {} if self.labels.shape[1:] == (0,) else {LABELS: self.labels}
        return own | dict(self.named)

    def stream(self, windows: Iterable[slice | npt.NDArray[np.int64]]) -> Iterator[Split]:
        """`take` of each of `windows`."""
        yield from map(self.take, windows)

    def close(self) -> None:
        """End the worker processes that decode it, where there are any."""

    @property
    def problems(self) -> Sequence[Problem]:
        """The images that were found to be bad, and are skipped."""
        return ()

    @property
    def usable(self) -> npt.NDArray[np.int64]:
        """The indices of the examples that are not known to be bad."""
        return np.arange(len(self), dtype=np.int64)


@dataclass(frozen=True, eq=False)
class Dataset:
    """A training and a test split. `classes` names the class indices; empty where the data doesn't.

    `passed_over` are files among the images that are none, and classes without an image.
    """

    name: str
    train: Split
    test: Split
    classes: tuple[str, ...] = ()
    passed_over: tuple[Problem, ...] = ()

    def close(self) -> None:
        """End the worker processes, where there are any."""
        for split in (self.train, self.test):
            split.close()

    @property
    def problems(self) -> Sequence[Problem]:
        """All that was found to be bad so far, and is skipped."""
        return [*self.passed_over, *self.train.problems, *self.test.problems]


@dataclass(frozen=True)
class Wanted:
    """What the network expects, as far as known: names of its classes, channels, (height, width), and how
    an image gets that size. Of image files further: whether a bad one stops the reading, and the number of
    worker processes that decode them (None: one a processor, for data too large to stay in memory).
    """

    classes: tuple[str, ...] = ()
    channels: int | None = None
    size: tuple[int, int] | None = None
    preprocessing: Preprocessing = field(default_factory=Preprocessing)
    on_bad_image: OnBadImage = "stop"
    workers: int | None = None


def numerals(count: int) -> tuple[str, ...]:
    """Class names that say no more than the index: ``("0", "1", …)``."""
    return tuple(map(str, range(count)))


def natural_order(name: str) -> tuple[list[str | int], str]:
    """A sort key that compares runs of digits as numbers."""
    parts = re.split("([0-9]+)", name.casefold())
    return [int(part) if index % 2 else part for index, part in enumerate(parts)], name
