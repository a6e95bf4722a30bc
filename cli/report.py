"""``cnnc report``: the pictures and the report of a run, made anew."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cnnc.cli.options import Data, Debug, Json
from cnnc.cli.output import print_json, print_note
from cnnc.errors import CnncError


def report(
    run: Annotated[
        Path,
        typer.Argument(metavar="RUN", readable=False, help="What `cnnc train` wrote.", show_default=False),
    ],
    data: Data = None,
    png: Annotated[
        bool, typer.Option("--png", help="Pictures as PNG too, which needs the extra cnnc[plots].")
    ] = False,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Write report.html and plots/ of a run.

    `cnnc train` does so at its end. The network is run over the test split of the run's data, or of --data.
    """
    from cnnc.data import load_for
    from cnnc.report import write_report
    from cnnc.runtime import Run

    opened, dataset, note = Run.open(run), None, ""
    try:
        dataset = load_for(opened.manifest, data or opened.settings.data)
    except CnncError as error:
        if data is not None:
            raise
        note = f"The answers on the test split are left out, since the data can't be read: {error}"
    made = write_report(opened, dataset, note=note, images=png)
    if json:
        plots = [str(path) for path in made.plots]
        print_json({"report": str(made.report), "plots": plots, "note": made.note})
        return
    typer.echo(
        f"{made.report}: open it in a browser. {len(made.plots)} pictures are in {made.plots[0].parent}."
    )
    if made.note:
        print_note(made.note)
