"""Parts of a split: a validation set that is put aside, and a few examples for a dry run."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from cnnc.data.catalogue import Problem
from cnnc.data.dataset import Split
from cnnc.errors import UsageError
from cnnc.initial import uniforms

Indices = slice | npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Part(Split):
    """The examples of `whole` at the indices `chosen`, whose images are taken from there when needed."""

    whole: Split = field(kw_only=True)
    chosen: npt.NDArray[np.int64] = field(kw_only=True)

    def __len__(self) -> int:
        return len(self.chosen)

    def take(self, indices: Indices) -> Split:
        """The examples at `indices` of this part."""
        return self.whole.take(self.chosen[indices])

    def stream(self, windows: Iterable[Indices]) -> Iterator[Split]:
        """`take` of each of `windows`."""
        return self.whole.stream(self.chosen[window] for window in windows)

    @property
    def problems(self) -> Sequence[Problem]:
        """Those of the whole."""
        return self.whole.problems

    @property
    def usable(self) -> npt.NDArray[np.int64]:
        """The indices, in this part, of the examples that are not known to be bad."""
        return np.flatnonzero(np.isin(self.chosen, self.whole.usable)).astype(np.int64, copy=False)


@dataclass(frozen=True)
class Share:
    """What of its training data a run trains on: at most `limit` examples, without the share `validation`.

    Both are drawn from `seed`.
    """

    limit: int | None = None
    validation: float = 0.0
    seed: int = 0

    def of(self, train: Split) -> tuple[Split, Split | None]:
        """The examples to train on, and those that are set aside, if any. Raises UsageError."""
        train = limited(train, self.limit, self.seed)
        return split_off(train, self.validation, self.seed) if self.validation else (train, None)


ALL = Share()
"""Every example is trained on."""


def limited(split: Split, count: int | None, seed: int) -> Split:
    """At most `count` examples of `split`, drawn from `seed`."""
    if count is None or count >= len(split):
        return split
    return _part(split, _drawn(split, seed, "limit")[:count])


def split_off(split: Split, share: float, seed: int) -> tuple[Split, Split]:
    """`split` without a `share` of its examples, and those; drawn from `seed`. Raises UsageError."""
    count = round(share * len(split))
    if not 0 < count < len(split):
        raise UsageError(
            f"a validation share of {share:g} puts {count} of {len(split)} training examples aside.",
            hint="Both parts need at least one.",
        )
    drawn = _drawn(split, seed, "validation")
    return _part(split, drawn[count:]), _part(split, drawn[:count])


def _drawn(split: Split, seed: int, purpose: str) -> npt.NDArray[np.int64]:
    return np.argsort(uniforms(len(split), seed, purpose), kind="stable")


def _part(split: Split, chosen: npt.NDArray[np.int64]) -> Part:
    chosen = np.sort(chosen)
    named = {name: array[chosen] for name, array in split.named.items()}
    return Part(split.images, split.labels[chosen], split.where, named=named, whole=split, chosen=chosen)
