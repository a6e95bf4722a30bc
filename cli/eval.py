"""``cnnc eval``: how well a trained network does on a data set."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from cnnc.cli.options import Data, Debug, Device, Json, TrainedModel, WhichState
from cnnc.cli.output import metric_words, print_json
from cnnc.errors import UsageError

if TYPE_CHECKING:
    from cnnc.deploy.trained import Which


def evaluate(
    source: TrainedModel,
    data: Data = None,
    which: WhichState = "best",
    device: Device = "auto",
    batch_size: Annotated[
        int, typer.Option(min=1, metavar="N", help="Examples at once; no metric depends on it.")
    ] = 256,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Compute the metrics of a model over a data set's test split.

    Without --data, a run is evaluated on the data it was trained on.
    """
    from cnnc.deploy.predict import evaluate as metrics_of

    data = data or _data_of(source)
    values = metrics_of(source, data, which=cast("Which", which), device=device, batch_size=batch_size)
    if json:
        print_json({"data": data, **{f"test_{name}": value for name, value in values.items()}})
    else:
        typer.echo(f"test {metric_words(values)}")


def _data_of(source: Path) -> str:
    """The data of a run; nothing else remembers any."""
    from cnnc.deploy.trained import open_folder
    from cnnc.runtime import Run

    run = None if source.is_file() else open_folder(source)
    if not isinstance(run, Run):
        raise UsageError(
            f"on which data? {source} is no run, which would remember its own.", hint="Give --data."
        )
    return run.settings.data
