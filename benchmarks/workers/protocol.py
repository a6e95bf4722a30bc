"""What a worker process and the driver say to each other: a line of JSON each way.

::

    worker → {"versions": {…}, "numbers": […]}     loaded; all that the first steps returned, for the check
    driver → {"warm_up": 3, "steps": 10}           a turn
    worker → {"milliseconds": […], "peak_memory_mb": 161.2}

The end of the worker's standard input ends it. Only Python and NumPy are needed here.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from benchmarks.architectures import ARCHITECTURES, Architecture

Array = npt.NDArray[Any]
Task = Literal["train", "evaluate", "infer"]
TASKS: tuple[Task, ...] = ("train", "evaluate", "infer")

CHECKED_STEPS = 5
STATE, BATCHES = "state.npz", "batches.npz"


@dataclass(frozen=True)
class Job:
    """What a worker is to do with `network`: a training step, the loss of a batch in evaluation, inference.

    `folder` holds STATE, the initial parameters and statistics under cnnc's names and layouts, and BATCHES,
    ``images`` [batches, N, C, H, W] in float32 and ``labels`` [batches, N] in int64. `options` are the
    contestant's own.
    """

    network: str
    task: Task
    threads: int
    folder: str
    options: Mapping[str, str]

    @property
    def architecture(self) -> Architecture:
        """The network."""
        return ARCHITECTURES[self.network]

    def state(self) -> dict[str, Array]:
        """The initial parameters and statistics."""
        with np.load(Path(self.folder) / STATE) as file:
            return dict(file)

    def batches(self) -> list[tuple[Array, Array]]:
        """Images [N, C, H, W] and labels [N]."""
        with np.load(Path(self.folder) / BATCHES) as file:
            return list(zip(file["images"], file["labels"], strict=True))

    def to_json(self) -> str:
        """The job as a worker's argument."""
        return json.dumps(asdict(self))


Step = Callable[[int], Any]
"""Does the i-th step, on batch i modulo the number of batches, and waits for its result: the loss, or in
inference the probabilities [N, classes] as NumPy sees them."""


def serve(contestant: Callable[[Job], Step], *libraries: str) -> None:
    """Load the job of the command line and take turns until the driver has no more."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", buffering=1)
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what libraries print is no answer
    job = Job(**json.loads(sys.argv[1]))
    step = contestant(job)
    numbers = [float(x) for i in range(CHECKED_STEPS) for x in np.ravel(step(i))]
    versions = {library: metadata.version(library) for library in libraries}
    print(json.dumps({"versions": versions, "numbers": numbers}), file=answers)
    done = CHECKED_STEPS
    for line in sys.stdin:
        turn = json.loads(line)
        milliseconds = []
        for i in range(turn["warm_up"] + turn["steps"]):
            began = time.perf_counter()
            step(done + i)
            milliseconds.append((time.perf_counter() - began) * 1e3)
        done += len(milliseconds)
        answer = {"milliseconds": milliseconds[turn["warm_up"] :], "peak_memory_mb": peak_memory()}
        print(json.dumps(answer), file=answers)


def peak_memory() -> float:
    """The largest resident size of this process, in 10⁶ bytes.

    From the kernel's VmHWM, which starts anew with the program; getrusage's would begin with that of the
    process that started it.
    """
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024 / 1e6
    raise OSError("the kernel does not tell VmHWM")
