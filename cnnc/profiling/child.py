"""The process that is measured: ``python -m cnnc.profiling.child < job > answer``.

It is one of its own so that its peak memory is that of the step, and of nothing that was loaded to build or
to show it. `cnnc.profiling.measure` is the other side; `Job` and `Answer` travel as JSON.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import onnxruntime as ort

from cnnc.bundle import Bundle
from cnnc.errors import CnncError
from cnnc.profiling.subject import Pass, Subject
from cnnc.runtime.memory import peak_memory
from cnnc.runtime.providers import choose, cpu_threads, open_session, session_options
from cnnc.runtime.session import EvalSession, StepSession, spec_of
from cnnc.runtime.tuned import TunedStep

LEAST_STEPS, WARM_UP_SECONDS, WARM_UP_STEPS = 10, 0.5, 3


@dataclass(frozen=True)
class Job:
    """What to measure: `steps` None means as many as fit into `seconds`.

    `profiled` is the same graph with names that tell, empty where nothing is to be profiled; `folder` takes
    the profiler's files.
    """

    name: str
    task: Pass
    graph: str
    bundle: str
    batch: int
    example: list[int] | None
    device: str
    threads: int | None
    steps: int | None
    seconds: float
    profiled: str
    profiled_steps: int
    folder: str


@dataclass(frozen=True)
class Answer:
    """Seconds of each step, bytes of memory, and where the profiler's file and the optimised graph lie."""

    seconds: list[float] = field(default_factory=list)
    peak_memory: int = 0
    device: str = ""
    provider: str = ""
    threads: int = 0
    profile: str = ""
    optimised: str = ""
    error: dict[str, str] | None = None


def main() -> int:
    """Answer the job on standard input."""
    job = Job(**json.load(sys.stdin))
    try:
        answer = run(job)
    except CnncError as error:
        told = {"kind": type(error).__name__, "what": error.what, "where": error.where, "hint": error.hint}
        answer = Answer(error=told)
    json.dump(asdict(answer), sys.stdout)
    return 0


def run(job: Job) -> Answer:
    """Time the steps, note the memory, then run the profiler."""
    bundle = Bundle.open(job.bundle) if job.bundle else None
    example = tuple(job.example) if job.example else None
    subject = Subject(job.name, job.task, Path(job.graph), bundle, job.batch, example)
    provider, threads = choose(job.device), job.threads or cpu_threads()
    step = _STEPS["model" if bundle is None else job.task](subject, provider, threads)
    seconds = _timed(step, job.steps, job.seconds)
    peak = peak_memory()
    del step
    profile, optimised = _profile(job, subject, provider, threads) if job.profiled else ("", "")
    return Answer(seconds, peak, provider.device, provider.words, threads, profile, optimised)


def _timed(step: Callable[[], object], steps: int | None, budget: float) -> list[float]:
    """Seconds of each step after a warm-up."""
    now = time.perf_counter
    began, warm = now(), 0
    while warm < WARM_UP_STEPS or (now() - began < WARM_UP_SECONDS and warm < 50):
        step()
        warm += 1
    seconds: list[float] = []
    end = now() + budget
    while len(seconds) < (steps or LEAST_STEPS) or (steps is None and now() < end):
        began = now()
        step()
        seconds.append(now() - began)
    return seconds


def _train_step(subject: Subject, provider: Any, threads: int) -> Callable[[], object]:
    assert subject.bundle is not None
    session = StepSession(subject.bundle, provider, threads, graph=subject.graph, tuned=_tuned(subject.graph))
    return partial(session.step, *subject.batch_arrays())


def _eval_step(subject: Subject, provider: Any, threads: int) -> Callable[[], object]:
    assert subject.bundle is not None
    session = EvalSession(subject.bundle, provider, threads)
    session.use(subject.bundle.initial_state())
    return partial(session.sums, *subject.batch_arrays())


def _run_model(subject: Subject, provider: Any, threads: int) -> Callable[[], object]:
    session = open_session(subject.graph, provider, threads)
    return partial(session.run, None, subject.feeds([*map(spec_of, session.get_inputs())]))


_STEPS: dict[str, Callable[[Subject, Any, int], Callable[[], object]]] = {
    "train": _train_step,
    "eval": _eval_step,
    "infer": _run_model,
    "model": _run_model,
}


def _profile(job: Job, subject: Subject, provider: Any, threads: int) -> tuple[str, str]:
    """Run a few steps under the profiler: its file, and the graph as ONNX Runtime has rewritten it."""
    options: ort.SessionOptions = session_options(provider, threads, _settings(subject))
    options.enable_profiling = True
    options.profile_file_prefix = str(Path(job.folder, "profile"))
    options.optimized_model_filepath = str(Path(job.folder, "optimised.onnx"))
    session = open_session(Path(job.profiled), provider, threads, options=options)
    feeds = subject.feeds([*map(spec_of, session.get_inputs())])
    for _ in range(job.profiled_steps + 1):
        session.run(None, feeds)
    return session.end_profiling(), options.optimized_model_filepath


def _tuned(graph: Path) -> TunedStep | None:
    """The record that lies beside a tuned step."""
    found = TunedStep.read(graph.parent)
    return found if found is not None and found.path == graph else None


def _settings(subject: Subject) -> Mapping[str, str] | None:
    """The session's settings that go with a tuned step."""
    if subject.task != "train" or subject.bundle is None:
        return None
    if tuned := _tuned(subject.graph):
        return tuned.options
    machine = subject.bundle.manifest.machine
    return machine.options if machine else None


if __name__ == "__main__":
    sys.exit(main())
