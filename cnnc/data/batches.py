"""Batches in a reproducible order, prepared on a thread while the step before them runs."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator
from queue import SimpleQueue
from threading import Event, Semaphore, Thread
from types import TracebackType
from typing import Generic, Self, TypeVar

import numpy as np
import numpy.typing as npt

from cnnc.data.dataset import Split
from cnnc.initial import uniforms

T = TypeVar("T")


def epoch_order(count: int, seed: int, epoch: int) -> npt.NDArray[np.int64]:
    """The order of `count` examples in an epoch: a permutation, a function of (seed, epoch) alone."""
    return np.argsort(uniforms(count, seed, f"order/{epoch}"), kind="stable").astype(np.int64, copy=False)


def batches(
    split: Split, batch_size: int, *, order: npt.NDArray[np.int64] | None = None, start: int = 0
) -> Iterator[Split]:
    """`split` in batches, the last one short where the size doesn't divide.

    `order` are the indices to go through (all, as stored, by default). `start` is the number of batches to
    leave out, so that an epoch can go on in its middle. Where bad images are skipped, the batches that they
    were in are short of them, and may be empty.
    """
    count = len(split) if order is None else len(order)
    windows = (slice(begin, begin + batch_size) for begin in range(start * batch_size, count, batch_size))
    yield from split.stream(windows if order is None else (order[window] for window in windows))


AHEAD_BYTES, MOST_AHEAD = 4 << 20, 16


def depth_for(item_bytes: int) -> int:
    """How many items of this size to make ahead: at least two, of small ones more, which are used up fast."""
    return max(2, min(MOST_AHEAD, AHEAD_BYTES // max(item_bytes, 1)))


class Prefetcher(Iterator[T], Generic[T]):
    """The items of an iterable, up to `depth` of them made ahead on a thread.

    The thread is woken when half of them are used up: each waking takes a core from the step for a moment.

    An exception of the iterable is raised here, after the items before it. Use it in a ``with`` statement:
    its end stops and joins the thread, however the block is left::

        with Prefetcher(batches(split, 32)) as ready:
            for batch in ready: ...
    """

    def __init__(self, items: Iterable[T], depth: int = 2) -> None:
        self._ready: SimpleQueue[tuple[T] | BaseException] = SimpleQueue()
        self._room = Semaphore(depth)
        self._half = max(depth // 2, 1)
        self._taken = 0
        self._stop = Event()
        self._thread = Thread(
            target=_produce,
            args=(iter(items), self._ready, self._room, self._stop),
            name="prefetch",
            daemon=True,
        )
        self._thread.start()

    def __next__(self) -> T:
        if self._stop.is_set():
            raise StopIteration
        item = self._ready.get()
        if isinstance(item, BaseException):
            self.close()
            raise item
        self._taken += 1
        if self._taken == self._half:
            self._room.release(self._half)
            self._taken = 0
        return item[0]

    def close(self) -> None:
        """Stop the thread and wait for its end; at most the item in its hands is still made."""
        self._stop.set()
        self._room.release()
        self._thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _produce(
    items: Iterator[T], ready: SimpleQueue[tuple[T] | BaseException], room: Semaphore, stop: Event
) -> None:
    """Make items while there is room; the end is a StopIteration in the queue, like any other exception."""
    try:
        while True:
            room.acquire()
            if stop.is_set():
                return
            ready.put((next(items),))
    except BaseException as error:
        ready.put(error)
    finally:
        if isinstance(items, Generator):
            items.close()  # on this thread: worker processes that made items end with it
