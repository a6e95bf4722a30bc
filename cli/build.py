"""``cnnc build``: a graph file to a bundle."""

from __future__ import annotations

from typing import Annotated

import typer

from cnnc.cli.options import SEED_LIMIT, Debug, Json, Output, Set, Source, graph_options
from cnnc.cli.output import print_json


def build(
    source: Source,
    output: Output = None,
    set_: Set = None,
    seed: Annotated[
        int, typer.Option(min=0, max=SEED_LIMIT, metavar="N", help="Draws the initial parameters.")
    ] = 0,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Compile a network and its training step to a bundle.

    A bundle is a folder of ONNX graphs and data. Its default name is the graph file's, with .bundle.
    """
    from cnnc.build import build as build_bundle

    bundle = build_bundle(source, output, options=graph_options(set_), seed=seed)
    manifest = bundle.manifest
    parameters = sum(entry.size for entry in manifest.entries("parameter"))
    if json:
        print_json({"bundle": str(bundle.path), "name": manifest.name, "parameters": parameters})
        return
    typer.echo(f"{bundle.path}: network '{manifest.name}', {parameters:,} parameters.")
    typer.echo(f"Train it with `cnnc train {bundle.path}`.")
