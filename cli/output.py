"""How results reach standard output: for people, or as JSON."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from cnnc.bundle import MemorySpec
    from cnnc.data.catalogue import Problem

KINDS = {"image": "bad image", "class": "empty class folder", "data": "fault", "note": "note"}
"""What the kinds of problems of a data set are called."""


def print_json(record: Mapping[str, Any]) -> None:
    """Print the one JSON object of ``--json``. What JSON has no number for (infinity) becomes null."""
    typer.echo(json.dumps(_finite(record), indent=1, allow_nan=False))


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def metric_words(values: Mapping[str, float]) -> str:
    """Metrics in words, the loss last: ``accuracy 0.9833, loss 0.0561``."""
    ordered = sorted(values.items(), key=lambda item: item[0] == "loss")
    return ", ".join(f"{name.replace('_', ' ')} {value:.4f}" for name, value in ordered)


def memory_words(spec: MemorySpec) -> str:
    """What was done so that a step fits."""
    done = []
    if spec.recomputed:
        done.append(f"computes {counted(spec.recomputed, 'activation')} again in its backward pass")
    if spec.chunks > 1:
        done.append(f"goes through a batch in {spec.chunks} chunks")
    return (
        f"memory: at batch size {spec.batch} training takes about {spec.estimate / 1e6:,.0f} of "
        f"{spec.limit / 1e6:,.0f} MB, beside its data; the step {' and '.join(done) or 'needs no saving'}."
    )


def counted(number: int, noun: str) -> str:
    """``1 epoch``, ``1,200 steps``."""
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


def fault_words(problems: Sequence[Problem]) -> str:
    """How many of each kind: ``2 bad images and 1 empty class folder``."""
    counts: Counter[str] = Counter(problem.kind for problem in problems)
    *rest, last = (counted(counts[kind], words) for kind, words in KINDS.items() if counts[kind])
    return f"{', '.join(rest)} and {last}" if rest else last


def print_notes(notes: Iterable[str]) -> None:
    """Print what the user should know beside the result, on standard error."""
    for note in notes:
        print_note(note)


def print_note(note: str) -> None:
    """Print one sentence on standard error."""
    typer.echo(note, err=True)
