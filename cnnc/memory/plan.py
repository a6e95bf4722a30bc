"""The search for a step that fits: nothing saved, then cheap activations computed again, then chunks too."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol, TypeVar

from cnnc.errors import UnsupportedError
from cnnc.memory.liveness import Estimate, estimate

MOST_CHUNKS = 64


@dataclass(frozen=True)
class MemoryLimit:
    """The bytes that a training process may take beside its data set, at this batch size."""

    bytes: int
    batch: int = 32


@dataclass(frozen=True)
class Saving:
    """What a step does to take less memory: cheap activations computed again, the batch in chunks."""

    recompute: bool = False
    chunks: int = 1


class Step(Protocol):
    """What a compiler makes, as far as memory matters."""

    @property
    def graphs(self) -> dict[str, bytes]:
        """The files of a bundle, ``train.onnx`` and ``eval.onnx`` among them."""

    @property
    def recomputed(self) -> tuple[str, ...]:
        """Names of the activations that it computes again."""

    @property
    def unsplittable(self) -> str:
        """Why the batch can't go in chunks, in a clause; empty where it can."""


S = TypeVar("S", bound=Step)


def fit(limit: MemoryLimit, compile_step: Callable[[Saving], S]) -> tuple[S, Saving, Estimate]:
    """Compile the step that saves least and fits. Raises UnsupportedError where none does."""

    def needs(step: S, chunks: int = 1) -> Estimate:
        return estimate(step.graphs["train.onnx"], step.graphs["eval.onnx"], limit.batch, chunks)

    saving = Saving()
    step = compile_step(saving)
    found = smallest = needs(step)
    if found.total > limit.bytes:
        leaner = compile_step(Saving(recompute=True))
        found = needs(leaner)
        if leaner.recomputed and found.total < smallest.total:
            step, saving, smallest = leaner, Saving(recompute=True), found
    if smallest.total <= limit.bytes:
        return step, saving, smallest
    for chunks in () if step.unsplittable else _counts(limit.batch):
        found = needs(step, chunks)
        if found.total <= limit.bytes:
            saving = replace(saving, chunks=chunks)
            return compile_step(saving), saving, found
        smallest = min(smallest, found, key=lambda e: e.total)
    raise UnsupportedError(
        f"the step does not fit into {_megabytes(limit.bytes)} at batch size {limit.batch}: the least it can "
        f"do with is about {_megabytes(smallest.total)}"
        + (f", and the batch can't go in chunks, because {step.unsplittable}." if step.unsplittable else "."),
        hint="Take a smaller batch, for which `Program(accumulate=…)` makes up, or a smaller network.",
    )


def _counts(batch: int) -> list[int]:
    """Numbers of chunks to try: 2, 3, 4, 6, 8, 12, …"""
    powers = [2**i for i in range(1, 7)]
    return [n for n in sorted({*powers, *(p + p // 2 for p in powers)}) if n <= min(batch, MOST_CHUNKS)]


def _megabytes(count: int) -> str:
    return f"{count / 1e6:,.0f} MB"
