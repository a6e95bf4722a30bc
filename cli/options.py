"""Options that several commands have, and how their values are read."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from cnnc.errors import UsageError

SEED_LIMIT = 2**31 - 1

Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]
Json = Annotated[
    bool, typer.Option("--json", help="Print one JSON object on standard output, and nothing else there.")
]
Data = Annotated[
    str | None,
    typer.Option(
        metavar="NAME|FOLDER",
        help="digits, mnist or fashion-mnist, or a folder with .npz files, IDX files or images.",
    ),
]
ClassWeights = Annotated[
    str | None,
    typer.Option(
        "--class-weights",
        metavar="balanced|A,B,…",
        help="What each class counts in the loss: numbers, or balanced by the training labels of --data.",
    ),
]
Average = Annotated[
    float | None,
    typer.Option(
        "--average",
        metavar="DECAY",
        help="Evaluate and export a moving average of the parameters, with a decay such as 0.999.",
    ),
]
Device = Annotated[
    str, typer.Option(metavar="auto|cpu|cuda", help="Where to run; auto takes CUDA where it works.")
]
Threads = Annotated[
    int | None, typer.Option(metavar="N", help="Threads inside an operator (the physical cores).")
]
Workers = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        help="Processes that decode image files ahead of the steps (one a processor, where the data is too "
        "large to stay in memory).",
    ),
]
BadImage = Annotated[
    str | None,
    typer.Option(
        "--on-bad-image",
        metavar="stop|skip",
        help="What an image that can't be read, or an empty class folder, does (stop).",
    ),
]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="NAME=VALUE", help="Set an option of the graph file; may be repeated."),
]
Output = Annotated[Path | None, typer.Option("-o", "--output", metavar="PATH", help="Where to write.")]
Source = Annotated[
    str,
    typer.Argument(
        metavar="SOURCE", help="A graph file, or the name of one that comes with cnnc.", show_default=False
    ),
]
TrainedFolder = Annotated[
    Path,
    typer.Argument(
        metavar="RUN|BUNDLE",
        readable=False,
        help="What `cnnc train` or `cnnc build` wrote.",
        show_default=False,
    ),
]
TrainedModel = Annotated[
    Path,
    typer.Argument(
        metavar="RUN|MODEL", readable=False, help="A run, a bundle, or an .onnx model.", show_default=False
    ),
]
WhichState = Annotated[
    str,
    typer.Option(
        metavar="best|last|raw",
        help="The run's state with the best test metric, its last, or the last without its moving average.",
    ),
]


MemoryLimit = Annotated[
    str | None,
    typer.Option(
        metavar="SIZE", help="What training may take, such as 2GB: a step then computes some values twice."
    ),
]
_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "KI": 2**10, "MI": 2**20, "GI": 2**30}


def memory_bytes(text: str | None) -> int | None:
    """``2GB``, ``1.5GiB``, ``800M`` as bytes. Raises UsageError."""
    if text is None:
        return None
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMG]I?|)B?\s*", text.upper())
    if found is None:
        raise UsageError(f"--memory-limit takes a size such as 2GB or 800MiB, not '{text}'.")
    return int(float(found[1]) * _UNITS[found[2]])


def graph_options(pairs: Sequence[str] | None) -> dict[str, str]:
    """``["width=64"]`` as ``{"width": "64"}``. Raises UsageError."""
    options = {}
    for pair in pairs or ():
        name, equals, value = pair.partition("=")
        if not name or not equals:
            raise UsageError(f"--set takes NAME=VALUE, such as --set width=64, not '{pair}'.")
        options[name] = value
    return options
