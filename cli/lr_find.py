"""``cnnc lr-find``: which learning rate to train with."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cnnc.cli.options import Data, Debug, Device, Json, Set, Threads, graph_options
from cnnc.cli.output import print_json

if TYPE_CHECKING:
    from cnnc.runtime.probing import RateSearch


def lr_find(
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE|BUNDLE", help="A graph file, its name, or a bundle.", show_default=False
        ),
    ],
    data: Data = None,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", metavar="FILE.svg", help="Where to draw it (NAME.lr-find.svg)."),
    ] = None,
    low: Annotated[float, typer.Option("--from", metavar="RATE", help="The first rate.")] = 1e-6,
    high: Annotated[float, typer.Option("--to", metavar="RATE", help="The last rate.")] = 10.0,
    steps: Annotated[int, typer.Option(metavar="N", help="How many rates.")] = 120,
    batch_size: Annotated[int, typer.Option(metavar="N", help="Examples a step.")] = 32,
    seed: Annotated[int | None, typer.Option(metavar="N", help="Draws parameters and order.")] = None,
    device: Device = "auto",
    threads: Threads = None,
    set_: Set = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Suggest a learning rate: train a few steps while the rate grows, and see where the loss falls fastest.

    Nothing is kept of the training, and a bundle stays as it is (L. N. Smith, 2017). Choose a --batch-size
    like that of the run to come.
    """
    from cnnc.build import opened
    from cnnc.data import default_for, load_for
    from cnnc.report.rate_picture import write_rate_picture
    from cnnc.runtime import Settings
    from cnnc.runtime.probing import search_rate

    given: dict[str, Any] = {"batch_size": batch_size, "seed": seed, "device": device, "threads": threads}
    Settings(**given)
    with opened(source, options=graph_options(set_), seed=seed) as bundle:
        name = bundle.manifest.name
        settings = Settings(data=data or default_for(bundle.manifest), **given)
        dataset = load_for(bundle.manifest, settings.data)
        found = search_rate(bundle, dataset, settings, low=low, high=high, steps=steps)
    picture = write_rate_picture(found, output or Path(f"{name}.lr-find.svg"))
    if json:
        record = {"suggestion": found.suggestion, "diverged": found.diverged, "picture": str(picture)}
        print_json({**record, "rates": found.rates, "losses": found.losses})
    else:
        _print(found, picture)


def _print(found: RateSearch, picture: Path) -> None:
    if found.suggestion is None:
        typer.echo("no suggestion: the loss never falls clearly. Try other limits, or see the picture.")
    else:
        typer.echo(f"suggested learning rate: {found.suggestion:.2g}, where the loss falls fastest")
    lowest = min(range(len(found.losses)), key=found.losses.__getitem__, default=None)
    if lowest is not None:
        more = (
            f", and grows {'beyond all bounds' if found.diverged else 'little'} until {found.rates[-1]:.2g}"
        )
        typer.echo(f"the loss is lowest at {found.rates[lowest]:.2g} ({found.losses[lowest]:.4f}){more}")
    typer.echo(f"picture {picture}")
