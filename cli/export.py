"""``cnnc export``: a run to one ONNX model for inference."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from cnnc.cli.options import Data, Debug, Json, TrainedFolder, WhichState
from cnnc.cli.output import print_json, print_notes

if TYPE_CHECKING:
    from cnnc.deploy.export import ExportReport
    from cnnc.deploy.trained import Which


def export(
    source: TrainedFolder,
    output: Annotated[
        Path, typer.Option("-o", "--output", metavar="MODEL", help="The file to write, such as model.onnx.")
    ],
    which: WhichState = "best",
    opset: Annotated[
        int | None, typer.Option(metavar="N", help="The model's opset (that of the training graphs).")
    ] = None,
    embed_preprocessing: Annotated[
        bool, typer.Option("--embed-preprocessing", help="Scale inside the model: raw uint8 images go in.")
    ] = False,
    data: Data = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Write a trained network as one ONNX model, and prove it.

    Batch normalisation is folded, dropout gone, softmax applied. The model must do what the network did in
    training: on the test split of --data, or of the data the run was trained on, or on random images.
    """
    from cnnc.data import load_for
    from cnnc.deploy.export import export as export_model
    from cnnc.deploy.trained import open_folder

    dataset = None if data is None else load_for(open_folder(source).manifest, data)
    report = export_model(
        source,
        output,
        which=cast("Which", which),
        opset=opset,
        embed_preprocessing=embed_preprocessing,
        dataset=dataset,
    )
    print_notes(report.notes)
    if json:
        print_json(report.record())
    else:
        _print(report)


def _print(report: ExportReport) -> None:
    typer.echo(f"{report.path}: {report.nodes} nodes, opset {report.opset}, {report.size / 1e6:.2f} MB")
    typer.echo(
        f"proved on {report.data} ({report.examples:,}): outputs differ from the trained network's "
        f"by at most {report.difference:.1e} of the largest"
    )
    for name, (exported, run) in report.metrics.items():
        typer.echo(f"{name.replace('_', ' ')} {exported:.4f} (the run's own evaluation: {run:.4f})")
