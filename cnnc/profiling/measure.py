"""A measurement from start to end: the child that is measured, and what its profile says."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

import onnx

from cnnc import errors
from cnnc.errors import CnncError, ModelError
from cnnc.profiling.attribution import PARTS, Origins
from cnnc.profiling.child import Answer, Job
from cnnc.profiling.inline import inlined
from cnnc.profiling.profile import Times, read
from cnnc.profiling.report import Profile, Report, Row
from cnnc.profiling.subject import Subject

SECONDS, PROFILED_STEPS = 3.0, 12
_OWN = ("loss", "metrics", "update", "chunks")


def bench(
    subject: Subject,
    *,
    device: str = "auto",
    threads: int | None = None,
    steps: int | None = None,
    profile: bool = True,
) -> Report:
    """Measure `subject` in a process of its own; `steps` None means those of three seconds, at least ten.

    Raises ModelError where the graph can't be read or run, UsageError where it leaves sizes open,
    ProviderError where `device` can't be had.
    """
    with tempfile.TemporaryDirectory(prefix="cnnc-bench-") as folder:
        named = Path(folder, "named.onnx")
        origins = _prepare(subject, named) if profile else None
        job = Job(
            name=subject.name,
            task=subject.task,
            graph=str(subject.graph),
            bundle=str(subject.bundle.path) if subject.bundle else "",
            batch=subject.batch,
            example=list(subject.example) if subject.example else None,
            device=device,
            threads=threads,
            steps=steps,
            seconds=SECONDS,
            profiled=str(named) if profile else "",
            profiled_steps=PROFILED_STEPS,
            folder=folder,
        )
        answer = _ask(job)
        times = read(Path(answer.profile), Path(answer.optimised), origins) if origins else None
    return Report(
        name=subject.name,
        task=subject.task,
        graph=str(subject.graph),
        batch=subject.batch,
        device=answer.device,
        provider=answer.provider,
        threads=answer.threads,
        milliseconds=[second * 1e3 for second in answer.seconds],
        peak_memory=answer.peak_memory,
        profile=_profile(times, origins) if times and origins else None,
    )


def _prepare(subject: Subject, path: Path) -> Origins:
    """Write the graph with names that tell to `path`, and note where each node comes from."""
    try:
        model = onnx.load(subject.graph)
        onnx.save(inlined(model), path)
    except Exception as error:  # what onnx raises on a damaged file is anything
        what = " ".join(str(error).split())[:200].rstrip(".")
        raise ModelError(f"this graph can't be read: {what}.", where=str(subject.graph)) from error
    trained = {e.name for e in subject.bundle.manifest.entries("parameter")} if subject.bundle else set()
    return Origins(model.graph, trained)


def _ask(job: Job) -> Answer:
    """Run the child. Raises the error it tells, or MemoryError where the system killed it."""
    command = [sys.executable, "-m", "cnnc.profiling.child"]
    done = subprocess.run(command, input=json.dumps(asdict(job)), capture_output=True, text=True)
    if done.returncode == -signal.SIGKILL:
        raise MemoryError
    if done.returncode:
        last = done.stderr.strip().splitlines()[-1:]
        raise ModelError(f"the measured process ended: {''.join(last)[:300]}", where=job.graph)
    answer = Answer(**json.loads(done.stdout))
    if answer.error is not None:
        told = answer.error
        kind: type[CnncError] = getattr(errors, told["kind"])
        raise kind(told["what"], where=told["where"], hint=told["hint"])
    return answer


def _profile(times: Times, origins: Origins) -> Profile:
    present = {origin.layer for origin in times.by_origin}
    order = [*(layer for layer in origins.layers if layer in present), *(n for n in _OWN if n in present)]
    order += sorted(present - set(order))
    rows = (
        Row(
            layer,
            {
                p: times.by_origin[o]
                for p in PARTS
                for o in times.by_origin
                if (o.layer, o.part) == (layer, p)
            },
        )
        for layer in order
    )
    operators = dict(sorted(times.by_operator.items(), key=lambda item: -item[1]))
    return Profile(
        rows=tuple(rows),
        operators=operators,
        kernels=times.kernels,
        between=times.between,
        by_flow=times.by_flow,
        unassigned=times.unassigned,
        nodes=times.nodes,
    )
