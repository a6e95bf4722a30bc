"""``cnnc predict``: what a trained network says of images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from cnnc.cli.options import Debug, Device, Json, TrainedModel, WhichState
from cnnc.cli.output import print_json, print_notes

if TYPE_CHECKING:
    from cnnc.deploy.predict import Score
    from cnnc.deploy.trained import Which


def predict(
    source: TrainedModel,
    images: Annotated[
        list[Path], typer.Argument(metavar="IMAGE", readable=False, help="Image files.", show_default=False)
    ],
    top: Annotated[int, typer.Option(min=1, metavar="N", help="How many classes to show of each image.")] = 3,
    which: WhichState = "best",
    device: Device = "auto",
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Show the likeliest classes of image files."""
    from cnnc.deploy.predict import predict as predict_images

    predictions = predict_images(source, images, top=top, which=cast("Which", which), device=device)
    if json:
        print_json({"predictions": [prediction.record() for prediction in predictions]})
        return
    for prediction in predictions:
        print_notes(f"{prediction.image}: {note}" for note in prediction.notes)
        if not prediction.outputs:
            typer.echo(f"{prediction.image}: {_words(prediction.scores)}")
        for name, scores in prediction.outputs.items():
            typer.echo(f"{prediction.image}, {name}: {_words(scores)}")


def _words(scores: Sequence[Score]) -> str:
    return ", ".join(f"{score.name} {score.value:.4f}" for score in scores)
