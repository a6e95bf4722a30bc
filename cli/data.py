"""``cnnc data``: what concerns data sets alone."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cnnc.cli.command import Command
from cnnc.cli.options import Debug, Json, Workers
from cnnc.cli.output import KINDS, fault_words, print_json
from cnnc.errors import DataError

if TYPE_CHECKING:
    from cnnc.bundle import Manifest
    from cnnc.data.examining import DataReport

SHOWN = 20
"""So many classes get a line each."""

app = typer.Typer(help="Look at data sets.", no_args_is_help=True, rich_markup_mode=None)


@app.command("check", cls=Command)
def check(
    path: Annotated[
        str, typer.Argument(metavar="PATH", help="A data set, as --data takes it.", show_default=False)
    ],
    fits: Annotated[
        Path | None,
        typer.Option(
            "--for", metavar="RUN|BUNDLE", readable=False, help="Whether it fits this network, too."
        ),
    ] = None,
    workers: Workers = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Decode every image of a data set and list all that is wrong with it.

    Exits with 1 where anything would stop training, or be left out with --on-bad-image skip.
    """
    from cnnc.data.examining import examine

    report = examine(path, _manifest(fits) if fits else None, workers=workers)
    if json:
        print_json(report.record())
    else:
        _print(report)
    if faults := report.faults:
        raise DataError(f"this data set has {fault_words(faults)}.", where=path)


def _manifest(path: Path) -> Manifest:
    from cnnc.deploy.trained import open_folder

    return open_folder(path).manifest


def _print(report: DataReport) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("class", overflow="fold")
    for name in report.splits:
        table.add_column(name, justify="right", no_wrap=True)
    classes = list(dict.fromkeys(name for split in report.splits.values() for name in split.classes))
    for name in classes[:SHOWN]:
        table.add_row(name, *(f"{split.classes.get(name, 0):,}" for split in report.splits.values()))
    if len(classes) > SHOWN:
        table.add_row(f"… {len(classes) - SHOWN:,} more", *("" for _ in report.splits))
    table.add_row("all images", *(f"{split.images:,}" for split in report.splits.values()))
    table.add_row("of them bad", *(f"{split.bad:,}" for split in report.splits.values()))
    typer.echo(f"{report.where}: {report.title}.")
    if report.splits:
        Console(highlight=False, markup=False).print(table)
    for name, split in report.splits.items():
        sizes = _most(split.sizes)
        typer.echo(
            f"{name}: {sizes or 'no size known'} (height × width); {_most(split.modes) or 'no pixels'}."
        )
    for problem in report.problems:
        hint = f" {problem.hint}" if problem.hint else ""
        typer.echo(f"{KINDS[problem.kind]}: {problem.where}: {problem.what}{hint}")
    if report.ok:
        typer.echo("Nothing is wrong with it.")


def _most(counts: dict[str, int], shown: int = 3) -> str:
    """The first of some counts in words: ``8×8 (1,437), 9×9 (2) and 4 others``."""
    words = ", ".join(f"{name} ({count:,})" for name, count in list(counts.items())[:shown])
    return words + (f" and {len(counts) - shown:,} others" if len(counts) > shown else "")
