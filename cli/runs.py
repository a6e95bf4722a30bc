"""``cnnc runs``: the runs here or in a folder, compared."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cnnc.cli.options import Debug, Json
from cnnc.cli.output import counted, print_json, print_note

if TYPE_CHECKING:
    from cnnc.report.listing import Listed

MOST_SETTINGS = 6


def runs(
    folder: Annotated[
        Path | None,
        typer.Argument(metavar="FOLDER", readable=False, help="Where the runs are (here, and in runs/)."),
    ] = None,
    sort: Annotated[bool, typer.Option("--best-first", help="The best run first, not the oldest.")] = False,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """List runs: how far they are, their best metric, and the settings in which they differ."""
    from cnnc.report.listing import differing, list_runs

    found = list_runs(folder)
    if sort:
        found.sort(key=_worse)
    names = differing(found)
    if json:
        print_json({"runs": [asdict(run) for run in found], "differing": names})
        return
    if not found:
        typer.echo("no runs here or in runs/" if folder is None else f"{folder}: no runs")
        return
    _print(found, names)


def _worse(run: Listed) -> tuple[bool, float]:
    """A sort key that puts the best run first, and last those without any metric."""
    if run.best is None:
        return True, 0.0
    return False, -run.best if run.better == "higher" else run.best


def _print(found: list[Listed], names: list[str]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    whole = [run for run in found if not run.problem]

    networks, metrics = {run.network for run in whole}, {run.metric for run in whole}
    best = f"best {next(iter(metrics)).replace('_', ' ')}" if len(metrics) == 1 else "best"
    columns: dict[str, Callable[[Listed], str]] = {"run": lambda run: run.path}
    if len(networks) > 1:
        columns["network"] = lambda run: run.network
    columns["state"] = lambda run: run.state
    columns[best] = lambda run: _best(run, named=len(metrics) > 1)
    for name in names[:MOST_SETTINGS]:
        columns[name.replace("_", " ")] = partial(_setting, name)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for place, title in enumerate(columns):
        table.add_column(
            title, justify="left" if place < len(columns) - len(names[:MOST_SETTINGS]) else "right"
        )
    for run in whole:
        table.add_row(*(cell(run) for cell in columns.values()))
    if whole:
        Console(highlight=False, markup=False).print(table)
    if len(names) > MOST_SETTINGS:
        more = ", ".join(names[MOST_SETTINGS:])
        typer.echo(f"{counted(len(names) - MOST_SETTINGS, 'more setting')} differ: {more}; --json shows all")
    for run in found:
        if run.problem:
            print_note(run.problem)


def _best(run: Listed, named: bool) -> str:
    if run.best is None:
        return ""
    return f"{run.metric.replace('_', ' ') + ' ' if named else ''}{run.best:.4f}, epoch {run.best_epoch}"


def _setting(name: str, run: Listed) -> str:
    value = (run.settings or {}).get(name)
    if isinstance(value, dict):
        return " ".join(f"{name}={item}" for name, item in value.items())
    return "" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
