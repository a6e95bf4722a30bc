"""What cnnc's training loop costs around the step: batches, metrics, guards, checkpoints, logging.

The same step runs bare on batches that lie ready, and inside `cnnc.runtime.train` on images stored as bytes,
with the live table on a terminal of 80 columns and TensorBoard's files.
"""

from __future__ import annotations

import argparse
import importlib.util
import io
import json
import random
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar
from unittest.mock import patch

import numpy as np
from rich.console import Console

from benchmarks.environments import FOLDER
from benchmarks.networks import MODELS, program
from cnnc.bundle import Bundle, write_bundle
from cnnc.cli.live import Live
from cnnc.cli.progress import start_lines
from cnnc.compiler import compile_program
from cnnc.data import Dataset, Split, preprocess
from cnnc.report.tensorboard import TensorBoard
from cnnc.runtime import Callback, Settings, StepSession, evaluation, loop, train

T = TypeVar("T")
Span = tuple[float, float]
"""When a step began and ended, in seconds."""


@dataclass(frozen=True)
class Cost:
    """Medians in milliseconds: of a step alone, of a step in the loop, and of the time between two of them.

    `between` is the part that the loop adds to a step, and `period` how much longer a step takes in the
    loop, all told, than alone: it also counts what preparing batches on a thread takes from the step. Both
    are parts of a step's time, medians over rounds, as is `stall`, the longest time between two steps of an
    epoch, which is where a checkpoint begins. `overhead` compares whole times: from the second step to the
    last, with all checkpoints, ends of epochs and their files, but without the evaluations. `work` is a bound
    on the same that hardly depends on what else the machine does: the time between all steps, and the
    processor time of the loop's threads, as if the step stood still for all of it.
    """

    batch: int
    rounds: int
    bare_ms: float
    step_ms: float
    between_ms: float
    between: float
    period: float
    stall: float
    overhead: float
    work: float


@dataclass(frozen=True)
class Recording:
    """The spans of steps and of evaluations, and the processor time of other threads of Python."""

    steps: list[Span]
    evaluations: list[Span]
    threads: dict[threading.Thread, float]

    @property
    def mean(self) -> float:
        """Seconds a step, from the end of the first to that of the last, without evaluations."""
        whole = self.steps[-1][1] - self.steps[0][1]
        return (whole - _length(self.evaluations[:-1])) / (len(self.steps) - 1)

    @property
    def work(self) -> float:
        """Seconds a step between steps, without evaluations, and on other threads."""
        between = self.mean - _length(self.steps[1:]) / (len(self.steps) - 1)
        return between + sum(self.threads.values()) / len(self.steps)

    def sample(self) -> None:
        """Read the clocks of the threads that live."""
        for thread in threading.enumerate():
            if thread is not threading.current_thread() and thread.ident is not None:
                clock = time.pthread_getcpuclockid(thread.ident)
                self.threads[thread] = time.clock_gettime(clock)


def measure(
    bundle: Bundle, batch: int, steps: int, rounds: int, save_every: float = 60.0, epochs: int = 1
) -> Cost:
    """Run bare steps and the loop in turns: `epochs` of `steps` each a round.

    The loop saves every `save_every` seconds, and at the end of each epoch.
    """
    dataset = synthetic(bundle, batch, steps)
    settings = Settings(epochs=epochs, batch_size=batch, device="cpu", tune=False, save_every=save_every)
    found: list[tuple[float, ...]] = []
    for _ in range(rounds):
        seen: dict[str, Recording] = {}
        for name in random.sample(["bare", "loop"], 2):
            with recorded() as seen[name], tempfile.TemporaryDirectory() as folder:
                if name == "loop":
                    train(bundle, dataset, settings, Path(folder) / "run", watchers())
                else:
                    bare(bundle, dataset.train.take(slice(batch)), steps * epochs)
        pairs = enumerate(pairwise(seen["loop"].steps), 1)
        gaps = [after[0] - before[1] for number, (before, after) in pairs if number % steps]
        overhead = seen["loop"].mean / seen["bare"].mean - 1
        times = (_steps(seen["bare"].steps), _steps(seen["loop"].steps))
        work = seen["loop"].work / times[0]
        found.append((*times, statistics.median(gaps), max(gaps), overhead, work))
    alone, step, gap, *_ = (statistics.median(column) * 1e3 for column in zip(*found, strict=True))
    between = statistics.median(c / b for _, b, c, *_ in found)
    period = statistics.median((b + c) / a - 1 for a, b, c, *_ in found)
    stall = statistics.median(longest / b for _, b, _, longest, *_ in found)
    overhead, work = (statistics.median(each[column] for each in found) for column in (-2, -1))
    return Cost(batch, rounds, alone, step, gap, between, period, stall, overhead, work)


def watchers() -> list[Callback]:
    """The live table, and TensorBoard's files where tensorboardX is there."""
    terminal = Console(file=io.StringIO(), force_terminal=True, width=80)
    found: list[Callback] = [Live(terminal, start_lines)]
    if importlib.util.find_spec("tensorboardX"):
        found.append(TensorBoard())
    return found


def bare(bundle: Bundle, split: Split, steps: int) -> None:
    """Steps on one batch that lies ready."""
    session = StepSession(bundle, "cpu")
    images = preprocess(split.images, bundle.manifest.preprocessing, bundle.manifest.input)
    for _ in range(steps):
        session.step(images, split.labels)


def synthetic(bundle: Bundle, batch: int, steps: int) -> Dataset:
    """Random images as bytes: as many as `steps` batches to train on, and one batch to test."""
    draw = np.random.default_rng(0)
    shape = [int(size) for size in bundle.manifest.input.shape[1:]]

    def split(count: int) -> Split:
        images = draw.integers(0, 256, (count, *shape), dtype=np.uint8)
        return Split(images, draw.integers(0, 10, count))

    return Dataset("synthetic", split(batch * steps), split(batch))


@contextmanager
def recorded() -> Iterator[Recording]:
    """The spans of all steps that any StepSession does inside the block, and of the loop's evaluations."""
    found = Recording([], [], {})

    def timed(function: Callable[..., T], spans: list[Span]) -> Callable[..., T]:
        def call(*arguments: Any, **options: Any) -> T:
            began = time.perf_counter()
            result = function(*arguments, **options)
            spans.append((began, time.perf_counter()))
            found.sample()
            return result

        return call

    with (
        patch.object(StepSession, "step", timed(StepSession.step, found.steps)),
        patch.object(loop, "run_evaluation", timed(evaluation.run_evaluation, found.evaluations)),
    ):
        yield found


def _steps(spans: list[Span]) -> float:
    return statistics.median(ended - began for began, ended in spans)


def _length(spans: list[Span]) -> float:
    return sum(ended - began for began, ended in spans)


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of `command`."""
    parser.add_argument("--network", choices=sorted(MODELS), default="mission")
    parser.add_argument("--save-every", type=float, default=60.0, help="seconds between checkpoints")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--steps", type=int, default=200, help="steps an epoch")
    parser.add_argument("--epochs", type=int, default=1, help="epochs a turn")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--output", type=Path, default=FOLDER / "results", help="for loop.json")


def command(options: Any) -> None:
    """Measure, print and write."""
    with tempfile.TemporaryDirectory() as folder:
        compiled = compile_program(program(options.network))
        bundle = write_bundle(f"{folder}/bundle", compiled.manifest, compiled.graphs, compiled.state)
        cost = measure(
            bundle, options.batch, options.steps, options.rounds, options.save_every, options.epochs
        )
    options.output.mkdir(parents=True, exist_ok=True)
    (options.output / "loop.json").write_text(json.dumps(asdict(cost), indent=1) + "\n")
    print(
        f"A step at batch {cost.batch} takes {cost.bare_ms:.2f} ms alone and {cost.step_ms:.2f} ms in the "
        f"loop, which puts {cost.between_ms:.3f} ms between two of them: {cost.between:.1%} of a step, "
        f"and {cost.stall:.1%} where a checkpoint begins. "
        f"All told, a step takes {cost.period:+.1%} in the loop, and {cost.overhead:+.1%} with the ends of "
        f"epochs; the loop's own work is {cost.work:.1%} of a step ({cost.rounds} rounds)."
    )
