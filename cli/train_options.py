"""The options of ``cnnc train`` that are settings of a run, and what of them a resumed run may change."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cnnc.cli.options import graph_options
from cnnc.errors import UsageError

if TYPE_CHECKING:
    from cnnc.runtime import Run

Validation = Annotated[
    float | None,
    typer.Option(metavar="SHARE", help="Put so much of the training data aside, and choose the best by it."),
]
Limit = Annotated[
    int | None, typer.Option(metavar="N", help="Use only N training and N test examples: a dry run.")
]
Best = Annotated[
    str | None, typer.Option(metavar="METRIC", help="The metric of the best state (the first, or the loss).")
]
Patience = Annotated[
    int | None, typer.Option(metavar="N", help="Stop after N epochs in which that metric got no better.")
]
MinDelta = Annotated[
    float | None, typer.Option(metavar="X", help="To be better, it must gain more than this (0).")
]
Plateau = Annotated[
    int | None,
    typer.Option("--reduce-on-plateau", metavar="N", help="After N such epochs, lower the learning rate."),
]
PlateauFactor = Annotated[float | None, typer.Option(metavar="X", help="By this factor, each time (0.1).")]
OnNan = Annotated[
    str | None,
    typer.Option(
        metavar="stop|skip|rollback",
        help="What a NaN or infinity does: stop the run, skip the batch, or return to the epoch's beginning "
        "at half the learning rate (stop).",
    ),
]
SaveEvery = Annotated[
    float | None,
    typer.Option(metavar="SECONDS", help="Save within an epoch, too, so often (60); each epoch is saved."),
]
Config = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        readable=False,
        help="Settings as TOML, such as the settings.toml of a run; options outdo them.",
    ),
]
InitFrom = Annotated[
    Path | None,
    typer.Option(
        metavar="RUN|STATE|MODEL",
        readable=False,
        help="Begin with the parameters of a run, a bundle, a .safetensors state or an .onnx model.",
    ),
]
Resume = Annotated[
    Path | None,
    typer.Option(metavar="RUN", readable=False, help="Go on where this run stopped, with its settings."),
]


def with_config(config: Path | None, given: dict[str, Any], pairs: list[str] | None) -> dict[str, Any]:
    """The settings of a new run: those of the file, outdone by those on the command line."""
    options = graph_options(pairs)
    if config is None:
        return {**given, "options": options}
    from cnnc.runtime.settings_file import read_config

    read = read_config(config)
    if "source" in given and given["source"] != read.get("source"):
        read.pop("options", None)  # they are another graph file's
    return {**read, **given, "options": {**read.get("options", {}), **options}}


def changes(run: Run, given: dict[str, Any]) -> dict[str, Any]:
    """What of the settings `given` a run that goes on takes up. Raises UsageError where it keeps its own."""
    from cnnc.runtime import CHANGEABLE

    for name, value in given.items():
        own = getattr(run.settings, name)
        if name not in CHANGEABLE and value != own:
            raise UsageError(
                _kept(f"--{OPTIONS.get(name, name).replace('_', '-')}", value, own),
                where=str(run.path),
                hint=f"Start another run from its state: `cnnc train … --init-from {run.path}`.",
            )
    return {name: value for name, value in given.items() if name in CHANGEABLE}


def _kept(option: str, value: Any, own: Any) -> str:
    """That a run keeps its own value of an option."""
    if isinstance(value, bool):
        given = option if value else option.replace("--", "--no-")
        return f"{given}: the run began {'with' if own else 'without'} {option}, and goes on so."
    has = "began without one" if own is None else f"has {own}, and keeps it"
    return f"{option} {value}: the run {has}."


OPTIONS = {"plateau": "reduce_on_plateau"}
"""The options that are not called as their setting is."""
