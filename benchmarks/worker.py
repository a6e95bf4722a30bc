"""A contestant's process, seen from the driver: it runs while it answers, and is stopped while it waits."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
from pathlib import Path
from typing import Any

_THREAD_LIMITS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
_SETTINGS = {
    "KERAS_BACKEND": "tensorflow",
    "TORCHINDUCTOR_COMPILE_THREADS": "1",  # no pool of compiling processes that outlives the compilation
}


class WorkerError(Exception):
    """A worker ended, or did not answer in time."""


class Worker:
    """One process, in a group of its own so that a signal reaches all that it starts.

    `command` speaks `benchmarks.workers.protocol`; `log` takes what it writes to standard error.
    """

    def __init__(self, command: list[str], directory: Path, threads: int, log: Path) -> None:
        self.log = log
        settings = dict.fromkeys(_THREAD_LIMITS, str(threads)) | _SETTINGS
        with log.open("wb") as errors:
            self.process = subprocess.Popen(
                command,
                cwd=directory,
                env={**os.environ, **settings},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                start_new_session=True,
            )

    def ask(self, question: dict[str, Any], seconds: float) -> dict[str, Any]:
        """Put a question and wait for the answer. Raises WorkerError."""
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # the answer's end of file tells
            self.process.stdin.write(json.dumps(question).encode() + b"\n")
            self.process.stdin.flush()
        return self.answer(seconds)

    def answer(self, seconds: float) -> dict[str, Any]:
        """Let the worker run until it answers, then stop it. Raises WorkerError."""
        assert self.process.stdout is not None
        self._signal(signal.SIGCONT)
        if not select.select([self.process.stdout], [], [], seconds)[0]:
            raise WorkerError(f"it did not answer within {seconds:g} s")
        line = self.process.stdout.readline()
        if not line:
            last = self.log.read_text(errors="replace").strip().splitlines()[-1:]
            raise WorkerError(f"it ended: {''.join(last)[:500]}")
        self._signal(signal.SIGSTOP)
        os.waitid(os.P_PID, self.process.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
        answer: dict[str, Any] = json.loads(line)
        return answer

    def close(self) -> None:
        """End it and what it started, whatever they do."""
        self._signal(signal.SIGKILL)
        self.process.communicate()

    def _signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, number)
