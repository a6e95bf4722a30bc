"""cnnc: the sessions of its own runtime on what the driver built or exported; no part of the compiler."""

from __future__ import annotations

from pathlib import Path

from benchmarks.workers.protocol import Job, Step, serve
from cnnc.bundle import Bundle
from cnnc.errors import RunError
from cnnc.runtime import EvalSession, InferSession, StepSession
from cnnc.runtime.tuned import TunedStep


def contestant(job: Job) -> Step:
    batches = job.batches()
    if job.task == "infer":
        inference = InferSession(Path(job.options["model"]), "cpu", job.threads)
        return lambda i: inference(batches[i % len(batches)][0])
    bundle = Bundle.open(job.options["bundle"])
    if job.task == "train":
        state = bundle.initial_state() | job.state()
        folder = job.options.get("tuned")
        tuned = TunedStep.read(Path(folder)) if folder else None
        if folder and tuned is None:
            raise RunError("the tuned step is gone or damaged.", where=folder)
        session = StepSession(bundle, "cpu", job.threads, state=state, tuned=tuned)
        return lambda i: session.step(*batches[i % len(batches)])[0]
    evaluation = EvalSession(bundle, "cpu", job.threads)
    evaluation.use(job.state(), batches=1000)  # as for a split of many

    def evaluate(i: int) -> float:
        total, count = evaluation.sums(*batches[i % len(batches)])["loss"]
        return total / count

    return evaluate


if __name__ == "__main__":
    serve(contestant, "onnxruntime", "numpy")
