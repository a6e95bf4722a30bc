"""Options of the commands that read an ONNX model, and how their values are read."""

from __future__ import annotations

from typing import Annotated

import typer

from cnnc.errors import UsageError

ModelOutput = Annotated[
    str | None,
    typer.Option(
        "--model-output", metavar="NAME", help="Which of a model's outputs to train on (the first)."
    ),
]
InputSize = Annotated[
    str | None,
    typer.Option(metavar="CxHxW", help="The size of one example, where the model leaves it open."),
]
Dequantize = Annotated[
    bool, typer.Option("--dequantize", help="Take a model's quantisation away, to fine-tune it in float.")
]


def sizes(text: str | None) -> tuple[int, ...] | None:
    """``3x224x224`` as ``(3, 224, 224)``. Raises UsageError."""
    if text is None:
        return None
    try:
        found = tuple(int(part) for part in text.split("x"))
    except ValueError:
        found = ()
    if not found or min(found) < 1:
        raise UsageError(f"--input-size takes sizes such as 3x224x224, not '{text}'.")
    return found


def numbers(option: str, text: str | None) -> tuple[float, ...] | None:
    """``0.5,0.4,0.3`` as numbers. Raises UsageError."""
    if text is None:
        return None
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise UsageError(f"{option} takes numbers such as 0.485,0.456,0.406, not '{text}'.") from None
