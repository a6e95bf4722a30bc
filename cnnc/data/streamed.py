"""Splits of image files: decoded when they are taken, ahead by worker processes, or once and for all."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from cnnc.data.catalogue import Catalogue, Problem
from cnnc.data.dataset import OnBadImage, Split
from cnnc.data.images import Form
from cnnc.data.pool import Pool
from cnnc.data.reading import decode_place
from cnnc.errors import DataError

MEMORY_LIMIT = 2**28
"""Data sets of at most so many decoded bytes are decoded once and stay in memory."""
POOL_MEMORY_LIMIT = 2**30
"""Bytes of batches that are decoded ahead; where they are larger, there are fewer workers."""
WORTH_WORKERS = 500
"""From so many images on, worker processes are started to look at them, or to decode them once."""
CHUNK = 64
"""Examples a job where no batch size says it."""
Indices = slice | npt.NDArray[np.int64]


def default_workers() -> int:
    """As many worker processes as there are processors for this one, but no more than 8."""
    return min(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1, 8)


@dataclass(eq=False)
class Decoding:
    """How the images of a data set are decoded: by so many worker processes, which its splits share.

    `on_bad` says whether a bad image stops the reading or is left out.
    """

    workers: int = 0
    on_bad: OnBadImage = "stop"
    _pool: Pool | None = None

    def run(self, jobs: Iterator[dict[str, Any]], slot_bytes: int = 0) -> Iterator[tuple[Any, Any, Any]]:
        """Each job, its answer and its decoded batch, in order. Only with `workers`."""
        workers = max(1, min(self.workers, POOL_MEMORY_LIMIT // (2 * max(slot_bytes, 1))))
        pool, self._pool = self._pool, None  # while it is in use, nobody else finds it
        if pool is None or pool.closed or pool.slot_bytes < slot_bytes:
            if pool is not None:
                pool.close()
            pool = Pool(workers, slot_bytes)
        for job, answer in pool.run(jobs):
            batch = None
            if job["task"] == "decode":
                batch = pool.view(job["start"], (len(job["places"]), job["channels"], *job["size"]))
            yield job, answer, batch
        if self._pool is None:
            self._pool = pool
        else:
            pool.close()

    @property
    def pids(self) -> list[int]:
        """The process ids of the workers that wait for work."""
        return self._pool.pids if self._pool else []

    def close(self) -> None:
        """End the worker processes; they start again where they are needed."""
        if self._pool is not None:
            self._pool.close()
        self._pool = None


@dataclass(eq=False)
class Images:
    """The images of a split, as an array [n, C, H, W] of uint8 that lies in files.

    Indexing decodes, and raises DataError at a bad image, where `fetch` leaves it out. `problems` are the bad
    images found so far, by their index.
    """

    catalogue: Catalogue
    form: Form
    decoding: Decoding
    problems: dict[int, Problem] = field(default_factory=dict)
    dtype: npt.DTypeLike = field(default_factory=lambda: np.dtype(np.uint8))
    _decoded: npt.NDArray[np.uint8] | None = None

    def __post_init__(self) -> None:
        self.problems.update(self.catalogue.problems)
        assert self.form.size is not None
        self.shape = (len(self.catalogue), self.form.channels, *self.form.size)
        self.ndim = 4

    def __len__(self) -> int:
        return len(self.catalogue)

    @property
    def nbytes(self) -> int:
        """The size of all of them, decoded."""
        return int(np.prod(self.shape, dtype=np.int64))

    @property
    def usable(self) -> npt.NDArray[np.int64]:
        """The indices of the images that are not known to be bad."""
        return np.setdiff1d(np.arange(len(self), dtype=np.int64), list(self.problems))

    @property
    def in_memory(self) -> bool:
        """Whether they are decoded already."""
        return self._decoded is not None

    def __getitem__(self, indices: Indices | int) -> npt.NDArray[np.uint8]:
        if isinstance(indices, int | np.integer):
            return self[np.array([range(len(self))[indices]])][0]
        images, good = self.fetch(indices)
        if len(good) < len(_positions(indices, len(self))):
            bad = next(int(i) for i in _positions(indices, len(self)) if int(i) in self.problems)
            raise self.problems[bad].error()
        return images

    def fetch(self, indices: Indices) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
        """The good images at `indices`, and the indices of these."""
        positions = _positions(indices, len(self))
        good = self._without_bad(positions)
        if self._decoded is not None:
            whole = len(good) == len(positions)
            return self._decoded[indices if whole else good], good
        images = np.empty((len(good), *self.shape[1:]), np.uint8)
        bad = []
        for number, (index, place) in enumerate(zip(good.tolist(), self.catalogue.places(good), strict=True)):
            try:
                where = self.catalogue.where(index)
                images[number] = decode_place(place, self.form, self.catalogue.decoder, where)
            except DataError as error:
                self._found_bad(index, error)
                bad.append(number)
        return np.delete(images, bad, axis=0) if bad else images, np.delete(good, bad)

    def stream(
        self, windows: Iterable[Indices]
    ) -> Iterator[tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]]:
        """`fetch` of each of `windows`, by the worker processes where there are any."""
        if self._decoded is not None or not self.decoding.workers:
            yield from map(self.fetch, windows)
            return
        positions = (_positions(window, len(self)) for window in windows)
        head = next(positions, None)
        if head is None:
            return
        slot_bytes = len(head) * int(np.prod(self.shape[1:]))
        jobs = (self._job(good) for good in (self._without_bad(p) for p in _chain(head, positions)))
        for job, answer, batch in self.decoding.run(jobs, slot_bytes):
            good, bad = job["indices"], []
            for number, what, hint in answer["bad"]:
                where = self.catalogue.where(good[number])
                self._found_bad(good[number], DataError(what, where=where, hint=hint))
                bad.append(number)
            kept = np.delete(np.array(good, np.int64), bad)
            yield np.delete(batch, bad, axis=0) if bad else batch.copy(), kept

    def decode_all(self) -> npt.NDArray[np.uint8]:
        """Decode all of them into memory, once; pixels of bad ones are 0."""
        images = np.zeros(self.shape, np.uint8)
        windows = (slice(begin, begin + CHUNK) for begin in range(0, len(self), CHUNK))
        worth = len(self) >= WORTH_WORKERS
        for batch, good in self.stream(windows) if worth else map(self.fetch, windows):
            images[good] = batch
        self._decoded = images
        return images

    def _job(self, good: npt.NDArray[np.int64]) -> dict[str, Any]:
        form = self.form
        return {
            "task": "decode",
            "decoder": self.catalogue.decoder,
            "channels": form.channels,
            "size": form.size,
            "resize": form.resize,
            "crop": form.crop,
            "places": self.catalogue.places(good),
            "indices": good.tolist(),
        }

    def _without_bad(self, positions: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        if not self.problems:
            return positions
        if self.decoding.on_bad == "stop":
            bad = next((int(i) for i in positions if int(i) in self.problems), None)
            if bad is not None:
                raise self.problems[bad].error()
        return positions[[int(i) not in self.problems for i in positions]]

    def _found_bad(self, index: int, error: DataError) -> None:
        self.problems[index] = Problem.of(error)
        if self.decoding.on_bad == "stop":
            raise error


@dataclass(frozen=True, eq=False)
class ImageSplit(Split):
    """A split of image files. A batch is short of the bad images in it, where these are skipped."""

    images: Images  # type: ignore[assignment]  # what is used of an array, it has

    def take(self, indices: Indices) -> Split:
        """The examples at `indices`, without bad ones. Raises DataError where a bad one stops the reading."""
        return self._with(*self.images.fetch(indices))

    def stream(self, windows: Iterable[Indices]) -> Iterator[Split]:
        """`take` of each of `windows`, decoded ahead by the worker processes where there are any."""
        for images, good in self.images.stream(windows):
            yield self._with(images, good)

    def close(self) -> None:
        """End the worker processes; they start again where they are needed."""
        self.images.decoding.close()

    def _with(self, images: npt.NDArray[np.uint8], good: npt.NDArray[np.int64]) -> Split:
        return Split(images, self.labels[good], self.where)

    @property
    def problems(self) -> Sequence[Problem]:
        """The bad images found so far, in the order of the data."""
        return [problem for _, problem in sorted(self.images.problems.items())]

    @property
    def usable(self) -> npt.NDArray[np.int64]:
        """The indices of the examples that are not known to be bad."""
        return self.images.usable


def _positions(indices: Indices, count: int) -> npt.NDArray[np.int64]:
    if isinstance(indices, slice):
        return np.arange(*indices.indices(count), dtype=np.int64)
    return np.asarray(indices, dtype=np.int64)


def _chain(head: npt.NDArray[np.int64], rest: Iterator[npt.NDArray[np.int64]]) -> Iterator[Any]:
    yield head
    yield from rest
