"""One row: everyone loads, agrees on what the first steps return, and then takes turns, one at a time.

A contestant that waits is stopped with all its threads, so that none that spins takes a core from the one
that is measured. Each round goes through them in a new random order, and ratios are formed within a round,
where the machine is in the same mood.
"""

from __future__ import annotations

import random
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from benchmarks import environments
from benchmarks.contestants import Contestant
from benchmarks.inputs import Inputs
from benchmarks.networks import Row
from benchmarks.worker import Worker, WorkerError
from benchmarks.workers.protocol import Task
from cnnc.errors import CnncError

LOADING_SECONDS, TURN_SECONDS = 1800.0, 600.0


class DisagreementError(Exception):
    """A contestant computes something else."""


@dataclass
class Entry:
    """What became of a contestant: milliseconds of the steps of each turn, or why it is `out`."""

    contestant: Contestant
    versions: dict[str, str] = field(default_factory=dict)
    deviation: float = 0.0
    turns: list[list[float]] = field(default_factory=list)
    peak_memory_mb: float = 0.0
    out: str = ""


@dataclass(frozen=True)
class Plan:
    """How to measure. `steps` and `warm_up` None are each row's own; no `rounds` is a check only."""

    task: Task
    threads: int
    rounds: int
    steps: int | None
    warm_up: int | None
    environments: Path
    logs: Path


def measure(
    row: Row, contestants: Sequence[Contestant], plan: Plan, say: Callable[[str], None]
) -> list[Entry]:
    """An entry for each contestant; the first that loads is the one that the others must agree with."""
    entries = [Entry(contestant) for contestant in contestants]
    with tempfile.TemporaryDirectory(prefix="benchmarks-") as folder, ExitStack() as stack:
        match = _Match(row, plan, Inputs(row, plan.task, plan.threads, Path(folder)), say, stack)
        for entry in entries:
            match.load(entry)
        for number in range(plan.rounds):
            for entry in random.sample(entries, len(entries)):
                match.turn(entry)
            say(f"{row} round {number + 1} of {plan.rounds}")
    return entries


class _Match:
    def __init__(
        self, row: Row, plan: Plan, inputs: Inputs, say: Callable[[str], None], stack: ExitStack
    ) -> None:
        self.row, self.plan, self.inputs, self.say, self.stack = row, plan, inputs, say, stack
        self.workers: dict[str, Worker] = {}
        self.reference: list[float] | None = None
        plan.logs.mkdir(parents=True, exist_ok=True)

    def load(self, entry: Entry) -> None:
        """Start the contestant and check what its first steps returned."""
        plan, contestant = self.plan, entry.contestant
        with self._may_fail(entry):
            python = environments.python(contestant.environment, plan.environments)
            job = self.inputs.job(contestant)
            command = [str(python), "-m", f"benchmarks.workers.{contestant.worker}", job.to_json()]
            log = plan.logs / f"{self.row}-{plan.task}-{contestant.name}.log".translate(_NO_SEPARATORS)
            worker = Worker(command, environments.ROOT, plan.threads, log)
            self.stack.callback(worker.close)
            self.workers[contestant.name] = worker
            loaded = worker.answer(LOADING_SECONDS)
            entry.versions = loaded["versions"]
            self.reference = self.reference or loaded["numbers"]
            entry.deviation = check(loaded["numbers"], self.reference, plan.task)
            self.say(f"{self.row} {contestant.name} agrees within {entry.deviation:.0e}")

    def turn(self, entry: Entry) -> None:
        """Let the contestant take its turn, if it is still in."""
        if entry.out:
            return
        steps = self.plan.steps or self.row.steps
        warm_up = self.row.warm_up if self.plan.warm_up is None else self.plan.warm_up
        with self._may_fail(entry):
            worker = self.workers[entry.contestant.name]
            answer = worker.ask({"warm_up": warm_up, "steps": steps}, TURN_SECONDS)
            entry.turns.append(answer["milliseconds"])
            entry.peak_memory_mb = answer["peak_memory_mb"]

    @contextmanager
    def _may_fail(self, entry: Entry) -> Iterator[None]:
        """Put the contestant out where it fails, and give back what it holds."""
        name = entry.contestant.name
        try:
            yield
        except (CnncError, environments.SetupError, WorkerError, DisagreementError) as error:
            entry.out = str(error)
            self.say(f"{self.row} {name} is out: {error}")
            if name in self.workers:
                self.workers.pop(name).close()


_NO_SEPARATORS = str.maketrans(":/", "--")


def check(numbers: Sequence[float], reference: Sequence[float], task: Task) -> float:
    """The largest difference from `reference`, as a part of the largest number in it.

    In training, rounding grows from step to step: about threefold, more where it carries a value across a
    kink of ReLU or max pooling. Raises DisagreementError beyond 1e-4, times 3 with each step of training.
    """
    found, wanted = np.array(numbers), np.array(reference)
    if found.shape != wanted.shape:
        raise DisagreementError(f"it returned {found.size} numbers instead of {wanted.size}")
    tolerance = 1e-4 * (3.0 ** np.arange(len(wanted)) if task == "train" else 1.0)
    differences = np.abs(found - wanted) / np.abs(wanted).max()
    if not np.all(differences <= tolerance):
        at = int(np.argmax(np.where(differences <= tolerance, 0.0, 1.0)))
        raise DisagreementError(f"its number {at + 1} is {found[at]:.6g} instead of {wanted[at]:.6g}")
    return float(differences.max())
