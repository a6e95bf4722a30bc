"""What every reader returns: a `Dataset` of two `Split`s, and what a reader may know of the network."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


@dataclass(frozen=True, eq=False)
class Split:
    """Images and their labels, as stored.

    `images` is [n, C, H, W]: uint8 in 0…255, or float32 that is scaled already. `labels` is [n] of class
    indices (int64), [n, H, W] of them for pixels, or float32 targets [n, …]. `where` is the file or folder
    they came from, for messages. Only ``len()`` and `take` are needed to train, so images need not stay in
    memory for ever.
    """

    images: Array
    labels: Array
    where: str = ""

    def __len__(self) -> int:
        return len(self.images)

    def take(self, indices: slice | npt.NDArray[np.int64]) -> Split:
        """The examples at `indices`, in that order: a view for a slice, a copy for an array of indices."""
        return Split(self.images[indices], self.labels[indices], self.where)


@dataclass(frozen=True, eq=False)
class Dataset:
    """A training and a test split. `classes` names the class indices; empty where the data doesn't."""

    name: str
    train: Split
    test: Split
    classes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Wanted:
    """What the network expects, as far as known: names of its classes, channels and (height, width)."""

    classes: tuple[str, ...] = ()
    channels: int | None = None
    size: tuple[int, int] | None = None


def numerals(count: int) -> tuple[str, ...]:
    """Class names that say no more than the index: ``("0", "1", …)``."""
    return tuple(map(str, range(count)))
