"""``cnnc tune``: the fastest step for this machine and one batch size."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cnnc.cli.options import Debug, Json, Set, Threads, graph_options
from cnnc.cli.output import print_json


def tune(
    source: Annotated[
        str,
        typer.Argument(
            metavar="BUNDLE|SOURCE", help="A bundle, a graph file or its name.", show_default=False
        ),
    ],
    batch_size: Annotated[int, typer.Option(min=1, metavar="N", help="Examples a step.")] = 32,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", metavar="FOLDER", help="Write the tuned step as a bundle of its own."),
    ] = None,
    seconds: Annotated[float, typer.Option(min=0, metavar="S", help="The time it may take, about.")] = 60.0,
    exact: Annotated[
        bool, typer.Option("--exact", help="Allow only what differs by the order of sums: no Winograd.")
    ] = False,
    fresh: Annotated[bool, typer.Option("--fresh", help="Tune anew, whatever the cache holds.")] = False,
    threads: Threads = None,
    set_: Set = None,
    quiet: Annotated[bool, typer.Option("-q", "--quiet", help="Show no progress.")] = False,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Time the forms that each part of the step can have on this machine, and keep the fastest step.

    Training on this bundle with this batch size finds it in the cache. Every form is checked against the
    portable step before it is timed.
    """
    from cnnc.build import opened
    from cnnc.errors import BundleError, os_errors_as
    from cnnc.tuner import tune as search
    from cnnc.tuner.bundle import write_tuned_bundle

    def say(words: str) -> None:
        if not quiet:
            typer.echo(words, err=True)

    with opened(source, options=graph_options(set_)) as bundle:
        with os_errors_as(
            BundleError,
            "the cache of tuned steps can't be written",
            hint="Set CNNC_CACHE to a folder that can be.",
        ):
            found = search(
                bundle, batch_size, threads=threads, exact=exact, seconds=seconds, fresh=fresh, say=say
            )
        if output is not None:
            write_tuned_bundle(bundle, found.step, output)
    tuned = found.step
    if json:
        print_json(
            {**tuned.summary(), "from_cache": found.from_cache, "bundle": str(output) if output else None}
        )
        return
    where = "from the cache" if found.from_cache else f"{tuned.tried} candidates in {tuned.seconds:.0f} s"
    typer.echo(
        f"{where}: {tuned.step_ms:.2f} ms a step, {tuned.portable_ms:.2f} portable ({tuned.speedup:.2f}×)"
    )
    for node, form in sorted({**tuned.choices, **tuned.plan}.items()):
        typer.echo(f"  {node}: {form}")
    if tuned.chunks > 1:
        typer.echo(f"  the batch in {tuned.chunks} chunks")
    if tuned.lanes > 1:
        parts = f", each in {tuned.lane_chunks} chunks" if tuned.lane_chunks > 1 else ""
        typer.echo(f"  in training {tuned.lanes} parts of the batch side by side{parts}")
    for name, value in tuned.options.items():
        typer.echo(f"  ONNX Runtime: {name} = {value}")
    for words in tuned.dropped:
        typer.echo(f"  dropped {words}")
    if output is not None:
        typer.echo(f"wrote {output}, for batches of {batch_size} on this machine")
