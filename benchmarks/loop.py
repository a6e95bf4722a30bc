"""What cnnc's training loop costs around the step: batches, metrics, guards, checkpoints, progress.

The same step runs bare on batches that lie ready, and inside `cnnc.runtime.train` on images stored as bytes.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np

from benchmarks.environments import FOLDER
from benchmarks.networks import MODELS, program
from cnnc.bundle import Array, Bundle, write_bundle
from cnnc.compiler import compile_program
from cnnc.data import Dataset, Split, preprocess
from cnnc.runtime import Settings, StepSession, train
from cnnc.runtime.session import Sums

Span = tuple[float, float]
"""When a step began and ended, in seconds."""


@dataclass(frozen=True)
class Cost:
    """Medians in milliseconds: of a step alone, of a step in the loop, and of the time between two of them.

    `between` is the part that the loop adds to a step, and `period` how much longer a step takes in the
    loop, all told, than alone: it also counts what preparing batches on a thread takes from the step. Both
    are parts of a step's time, medians over rounds, as is `stall`, the longest time between two steps, which
    is where a checkpoint begins.
    """

    batch: int
    rounds: int
    bare_ms: float
    step_ms: float
    between_ms: float
    between: float
    period: float
    stall: float


def measure(bundle: Bundle, batch: int, steps: int, rounds: int, save_every: float = 60.0) -> Cost:
    """Run bare steps and the loop in turns, `steps` of each a round; it saves every `save_every` seconds."""
    dataset = synthetic(bundle, batch, steps)
    settings = Settings(epochs=1, batch_size=batch, device="cpu", tune=False, save_every=save_every)
    found: list[tuple[float, float, float, float]] = []
    for _ in range(rounds):
        spans: dict[str, list[Span]] = {}
        for name in random.sample(["bare", "loop"], 2):
            with recorded() as spans[name], tempfile.TemporaryDirectory() as folder:
                if name == "loop":
                    train(bundle, dataset, settings, Path(folder) / "run")
                else:
                    bare(bundle, dataset.train.take(slice(batch)), steps)
        gaps = [after[0] - before[1] for before, after in pairwise(spans["loop"])]
        found.append((_steps(spans["bare"]), _steps(spans["loop"]), statistics.median(gaps), max(gaps)))
    alone, step, gap, _ = (statistics.median(column) * 1e3 for column in zip(*found, strict=True))
    between = statistics.median(c / b for _, b, c, _ in found)
    period = statistics.median((b + c) / a - 1 for a, b, c, _ in found)
    stall = statistics.median(longest / b for _, b, _, longest in found)
    return Cost(batch, rounds, alone, step, gap, between, period, stall)


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
def recorded() -> Iterator[list[Span]]:
    """The spans of all steps that any StepSession does inside the block."""
    spans: list[Span] = []
    original = StepSession.step

    def step(self: StepSession, images: Array, targets: Array) -> tuple[float, Sums]:
        began = time.perf_counter()
        result = original(self, images, targets)
        spans.append((began, time.perf_counter()))
        return result

    with patch.object(StepSession, "step", step):
        yield spans


def _steps(spans: list[Span]) -> float:
    return statistics.median(ended - began for began, ended in spans)


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of `command`."""
    parser.add_argument("--network", choices=sorted(MODELS), default="mission")
    parser.add_argument("--save-every", type=float, default=60.0, help="seconds between checkpoints")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--steps", type=int, default=200, help="steps a turn")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--output", type=Path, default=FOLDER / "results", help="for loop.json")


def command(options: Any) -> None:
    """Measure, print and write."""
    with tempfile.TemporaryDirectory() as folder:
        compiled = compile_program(program(options.network))
        bundle = write_bundle(f"{folder}/bundle", compiled.manifest, compiled.graphs, compiled.state)
        cost = measure(bundle, options.batch, options.steps, options.rounds, options.save_every)
    options.output.mkdir(parents=True, exist_ok=True)
    (options.output / "loop.json").write_text(json.dumps(asdict(cost), indent=1) + "\n")
    print(
        f"A step at batch {cost.batch} takes {cost.bare_ms:.2f} ms alone and {cost.step_ms:.2f} ms in the "
        f"loop, which puts {cost.between_ms:.3f} ms between two of them: {cost.between:.1%} of a step, "
        f"and {cost.stall:.1%} where a checkpoint begins. "
        f"All told, a step takes {cost.period:+.1%} in the loop ({cost.rounds} rounds)."
    )
