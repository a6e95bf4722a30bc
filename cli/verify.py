"""``cnnc verify``: the same numbers on every runtime."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from cnnc.cli.options import Debug, Json, TrainedFolder
from cnnc.cli.output import print_json, print_notes
from cnnc.errors import ParityError

if TYPE_CHECKING:
    from cnnc.deploy.verify import VerifyReport


def verify(
    source: TrainedFolder,
    tolerance: Annotated[
        float | None,
        typer.Option(min=0, metavar="NUMBER", help="The largest relative difference that passes (1e-4)."),
    ] = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Compare inference and a training step on all runtimes.

    Each runtime that is installed runs both. Exits with 1 where one differs from ONNX Runtime by more than
    the tolerance, or can't run a graph.
    """
    from cnnc.deploy.verify import TOLERANCE
    from cnnc.deploy.verify import verify as compare

    def say(runtime: str) -> None:
        typer.echo(f"{runtime} …", err=True)

    report = compare(source, tolerance=TOLERANCE if tolerance is None else tolerance, progress=say)
    print_notes(f"{name} is not here: {why}" for name, why in report.absent.items())
    if json:
        print_json(report.record())
    else:
        _print(report)
    if failed := [runtime.name for runtime in report.runtimes if not runtime.ok(report.tolerance)]:
        raise ParityError(
            f"beyond the tolerance of {report.tolerance:g}, or unable to run a graph: {', '.join(failed)}.",
            where=report.where,
        )


COLUMNS = {"outputs": "outputs", "loss": "loss", "next state": "state", "split step": "split_step"}
"""Titles, and what `VerifyReport.record` calls the largest difference there."""


def _print(report: VerifyReport) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("runtime", overflow="fold")
    table.add_column("version")
    for title in COLUMNS:
        table.add_column(title, justify="right", no_wrap=True)
    for row in report.record()["runtimes"]:
        differences = ["failed" if row["failure"] else f"{row[key]:.1e}" for key in COLUMNS.values()]
        table.add_row(row["runtime"], row["version"], *differences)
    Console(highlight=False, markup=False).print(table)
    for runtime in report.runtimes:
        name, value = runtime.largest()
        if runtime.failure:
            typer.echo(f"{runtime.name} can't run it: {runtime.failure}")
        elif value:
            typer.echo(f"{runtime.name}: largest difference {value:.1e}, {name}")
