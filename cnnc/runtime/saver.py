"""Writing a run directory on a thread: training waits for a copy of the state, not for a disk."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Self


class Saver:
    """One job of writing at a time, on a thread of its own.

    An error of a job reaches the next call of `start`, `check` or `wait`, once. Use it in a ``with``
    statement, whose end waits for the job under way, however the block is left.
    """

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="save")
        self._job: Future[None] | None = None

    @property
    def busy(self) -> bool:
        """Whether a job is under way."""
        return self._job is not None and not self._job.done()

    def start(self, job: Callable[[], None]) -> None:
        """Begin `job`, after the one under way. Raises what that one raised."""
        self.wait()
        self._job = self._thread.submit(job)

    def check(self) -> None:
        """Raise what the last job raised, if it has ended."""
        if self._job is not None and self._job.done():
            self.wait()

    def wait(self) -> None:
        """Wait until nothing is being written. Raises what the job raised."""
        job, self._job = self._job, None
        if job is not None:
            job.result()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._thread.shutdown(wait=True)
        if kind is None:
            self.wait()
