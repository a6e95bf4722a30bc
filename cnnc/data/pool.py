"""Worker processes that decode images ahead of time, into memory they share with this one.

They are plain child processes that get their jobs through a pipe and end when it closes, so none outlives
this process, however it ends. The shared memory has no name in the file system, so nothing of it can be left
behind either. Nothing is pickled, and the program's main module is not imported again.
"""

from __future__ import annotations

import contextlib
import json
import mmap
import os
import select
import subprocess
import sys
import tempfile
import weakref
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

import cnnc
from cnnc.data.worker import PAGE
from cnnc.errors import DataError

AHEAD = 2
"""Jobs that each worker has in hand or in waiting."""
Job = dict[str, Any]


class Pool:
    """`workers` processes and memory for `AHEAD` batches of at most `slot_bytes` for each of them."""

    def __init__(self, workers: int, slot_bytes: int = 0) -> None:
        self.workers, self.slot_bytes = workers, slot_bytes
        slots = AHEAD * workers
        size = PAGE + slots * slot_bytes
        self._memory_file = _anonymous(size)
        self._memory = mmap.mmap(self._memory_file.fileno(), size)
        self._hand = np.frombuffer(self._memory, np.int64, PAGE // 8)
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 -- closed at the end of the pool
        self._processes = [self._start(number, size) for number in range(workers)]
        self._buffers = [b""] * workers
        self._load: list[deque[int]] = [deque() for _ in range(workers)]
        self._free = [PAGE + slot * slot_bytes for slot in range(slots)]
        self._end = weakref.finalize(self, _end, self._processes, [self._memory_file, self._errors])

    def run(self, jobs: Iterator[Job]) -> Iterator[tuple[Job, Job]]:
        """Each job with its answer, in the order of the jobs. At most `AHEAD` jobs a worker are under way.

        A job's batch lies at ``job["start"]`` of `view` until the next answer is asked for. Raises DataError
        where a worker dies. Where the iterator is left before its end, the pool is closed.
        """
        sent: dict[int, Job] = {}
        answers: dict[int, Job] = {}
        first = number = 0
        whole = False
        try:
            while True:
                while self._free and (job := next(jobs, None)) is not None:
                    job |= {"job": number, "start": self._free.pop()}
                    self._send(job, sent)
                    sent[number] = job
                    number += 1
                if first == number:
                    whole = True
                    return
                while first not in answers:
                    self._receive(answers, sent)
                job = sent.pop(first)
                yield job, answers.pop(first)
                self._free.append(job["start"])
                first += 1
        finally:
            if not whole:
                self.close()

    def view(self, start: int, shape: tuple[int, ...]) -> npt.NDArray[np.uint8]:
        """The batch at `start`, without a copy."""
        return np.frombuffer(self._memory, np.uint8, int(np.prod(shape)), start).reshape(shape)

    @property
    def closed(self) -> bool:
        """Whether the processes have been ended."""
        return not self._end.alive

    @property
    def pids(self) -> list[int]:
        """The process ids of the workers."""
        return [process.pid for process in self._processes]

    def close(self) -> None:
        """End the processes; whatever they have in hand is left."""
        self._end()

    def _start(self, number: int, size: int) -> subprocess.Popen[bytes]:
        descriptor = self._memory_file.fileno()
        package = str(Path(cnnc.__file__).parent.parent)
        path = os.pathsep.join(filter(None, [os.environ.get("PYTHONPATH"), package]))
        try:
            return subprocess.Popen(
                [sys.executable, "-P", "-m", "cnnc.data.worker", str(descriptor), str(size), str(number)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._errors,
                pass_fds=[descriptor],
                process_group=0,  # Ctrl-C is for the parent, which ends its workers itself
                env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
            )
        except OSError as error:
            raise DataError(
                f"no worker process can be started: {error.strerror}.", hint="Use --workers 0."
            ) from error

    def _send(self, job: Job, sent: dict[int, Job]) -> None:
        worker = min(range(self.workers), key=lambda number: len(self._load[number]))
        self._load[worker].append(job["job"])
        pipe = self._processes[worker].stdin
        assert pipe is not None
        try:
            pipe.write(json.dumps(job).encode() + b"\n")
            pipe.flush()
        except BrokenPipeError:
            self._died(worker, {**sent, job["job"]: job})

    def _receive(self, answers: dict[int, Job], sent: dict[int, Job]) -> None:
        """Wait until there are answers, and take them."""
        poll = select.poll()
        pipes = {}
        for worker, process in enumerate(self._processes):
            assert process.stdout is not None
            pipes[process.stdout.fileno()] = worker
            poll.register(process.stdout, select.POLLIN)
        for descriptor, _ in poll.poll():
            worker = pipes[descriptor]
            data = os.read(descriptor, 2**20)
            if not data:
                self._died(worker, sent)
            *lines, self._buffers[worker] = (self._buffers[worker] + data).split(b"\n")
            for line in lines:
                answer = json.loads(line)
                if "failed" in answer:
                    raise RuntimeError(f"a worker process failed:\n{answer['failed']}")
                self._load[worker].remove(answer["job"])
                answers[answer["job"]] = answer

    def _died(self, worker: int, sent: dict[int, Job]) -> None:
        """Raise the DataError that says how a worker ended, and what it had in hand."""
        status = self._processes[worker].wait()
        how = f"was killed by signal {-status}" if status < 0 else f"ended with status {status}"
        job = sent.get(self._load[worker][0]) if self._load[worker] else None
        place = job["places"][min(int(self._hand[worker]), len(job["places"]) - 1)] if job else None
        self._errors.seek(0)
        said = self._errors.read()[-2000:].decode(errors="replace").strip().splitlines()
        self.close()
        raise DataError(
            f"a worker process that reads images {how}{f' ({said[-1]})' if said else ''}.",
            where=str(place[0]) if place else "",
            hint="The system may have run out of memory: use fewer --workers, or --workers 0 to see the "
            "error in this process.",
        )


def _anonymous(size: int) -> IO[bytes]:
    """A file of this size that lies in memory and has no name."""
    if hasattr(os, "memfd_create"):
        file: IO[bytes] = os.fdopen(os.memfd_create("cnnc-batches"), "r+b")
    else:
        file = tempfile.TemporaryFile()  # noqa: SIM115 -- closed at the end of the pool
    try:
        os.ftruncate(file.fileno(), size)
    except OSError as error:
        file.close()
        raise DataError(
            f"there is no room for batches of {size:,} bytes: {error.strerror}.",
            hint="Use a smaller batch or fewer workers.",
        ) from error
    return file


def _end(processes: list[subprocess.Popen[bytes]], files: list[IO[bytes]]) -> None:
    """Close the jobs' pipes, which ends the workers, and wait for them."""
    for process in processes:
        assert process.stdin is not None
        with contextlib.suppress(OSError):
            process.stdin.close()
    for process in processes:
        try:
            process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        assert process.stdout is not None
        process.stdout.close()
    for file in files:
        file.close()
