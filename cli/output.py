"""How results reach standard output: for people, or as JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from typing import Any

import typer


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


def counted(number: int, noun: str) -> str:
    """``1 epoch``, ``1,200 steps``."""
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


def print_notes(notes: Iterable[str]) -> None:
    """Print what the user should know beside the result, on standard error."""
    for note in notes:
        print_note(note)


def print_note(note: str) -> None:
    """Print one sentence on standard error."""
    typer.echo(note, err=True)
