"""``cnnc build``: a graph file or an ONNX model to a bundle."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from cnnc.cli.model_options import Dequantize, InputSize, ModelOutput, numbers, sizes
from cnnc.cli.options import (
    SEED_LIMIT,
    Average,
    ClassWeights,
    Data,
    Debug,
    Json,
    MemoryLimit,
    Output,
    Set,
    graph_options,
    memory_bytes,
)
from cnnc.cli.output import memory_words, print_json, print_notes
from cnnc.errors import UsageError

if TYPE_CHECKING:
    from cnnc.class_weights import ClassWeights as Weights
    from cnnc.foreign.training import Wishes


def build(
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE",
            help="A graph file, the name of one that comes with cnnc, or an .onnx model.",
            show_default=False,
        ),
    ],
    output: Output = None,
    set_: Set = None,
    seed: Annotated[
        int, typer.Option(min=0, max=SEED_LIMIT, metavar="N", help="Draws the initial parameters.")
    ] = 0,
    loss: Annotated[
        list[str] | None,
        typer.Option(
            metavar="[OUTPUT=]LOSS[:WEIGHT]",
            help="Of a model: softmax_cross_entropy, binary_cross_entropy, mse, …; repeated with OUTPUT= for "
            "several outputs.",
        ),
    ] = None,
    same_target: Annotated[
        list[str] | None,
        typer.Option(
            metavar="OTHER=OUTPUT", help="Compare output OTHER with the target of OUTPUT; may be repeated."
        ),
    ] = None,
    optimizer: Annotated[
        str | None, typer.Option(metavar="NAME", help="Of a model: sgd, adam, adamw, … (adam).")
    ] = None,
    lr: Annotated[
        float | None, typer.Option(metavar="RATE", help="Of a model: the base learning rate.")
    ] = None,
    lr_for: Annotated[
        list[str] | None,
        typer.Option(
            metavar="REGEX=RATE",
            help="Another rate for parameters whose whole name this matches; may be repeated.",
        ),
    ] = None,
    weight_decay: Annotated[
        float | None, typer.Option(metavar="NUMBER", help="Of a model: the optimizer's weight decay.")
    ] = None,
    decay_for: Annotated[
        list[str] | None,
        typer.Option(metavar="REGEX=NUMBER", help="Another weight decay for such parameters."),
    ] = None,
    train: Annotated[
        str | None,
        typer.Option(metavar="REGEX", help="Train only parameters of a model whose whole name this matches."),
    ] = None,
    freeze: Annotated[
        str | None, typer.Option(metavar="REGEX", help="Leave such parameters of a model as they are.")
    ] = None,
    classes: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Give a model a new last layer of N outputs.")
    ] = None,
    lora: Annotated[
        str | None,
        typer.Option(
            metavar="REGEX",
            help="Train low-rank additions to such weights of a model (LoRA), and nothing else.",
        ),
    ] = None,
    lora_rank: Annotated[
        int | None, typer.Option(metavar="N", help="The rank of these additions (8).")
    ] = None,
    lora_alpha: Annotated[
        float | None, typer.Option(metavar="NUMBER", help="They count alpha / rank (the rank).")
    ] = None,
    init_from: Annotated[
        str | None,
        typer.Option(metavar="MODEL", help="Take the weights of another model, by name and shape."),
    ] = None,
    freeze_batchnorm: Annotated[
        bool, typer.Option("--freeze-batchnorm", help="Keep a model's running statistics, in training too.")
    ] = False,
    scale: Annotated[
        float | None, typer.Option(metavar="NUMBER", help="What a stored pixel is multiplied by (1/255).")
    ] = None,
    mean: Annotated[
        str | None, typer.Option(metavar="A,B,…", help="Then subtracted, a number a channel.")
    ] = None,
    std: Annotated[str | None, typer.Option(metavar="A,B,…", help="Then divided by.")] = None,
    resize: Annotated[
        str | None,
        typer.Option(
            metavar="exact|stretch|crop|pad",
            help="How an image file gets the input's size (exact: it has it).",
        ),
    ] = None,
    crop: Annotated[
        float | None,
        typer.Option(metavar="SHARE", help="With --resize crop: the share of it that stays (1)."),
    ] = None,
    augment: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KIND[:SETTINGS]",
            help="Augment a model's images in training: crop:4, flip, rotate:15, jitter:0.2, mixup:0.2, …; "
            "may be repeated.",
        ),
    ] = None,
    model_output: ModelOutput = None,
    input_size: InputSize = None,
    dequantize: Dequantize = False,
    class_weights: ClassWeights = None,
    average: Average = None,
    data: Data = None,
    memory_limit: MemoryLimit = None,
    batch_size: Annotated[
        int, typer.Option(min=1, metavar="N", help="Examples a step, for --memory-limit.")
    ] = 32,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Compile a network and its training step to a bundle.

    A bundle is a folder of ONNX graphs and data. Its default name is the source's, with .bundle. Options from
    --loss to --dequantize are for ONNX models; a graph file says these things itself. --data is there for
    --class-weights balanced alone: a bundle keeps no data.
    """
    from cnnc.build import build as build_bundle
    from cnnc.build import build_model, is_model

    given = {
        "loss": loss or None,
        "same_target": tuple(same_target or ()) or None,
        "optimizer": optimizer,
        "lr": lr,
        "lr_for": tuple(lr_for or ()) or None,
        "weight_decay": weight_decay,
        "decay_for": tuple(decay_for or ()) or None,
        "train": train,
        "freeze": freeze,
        "classes": classes,
        "lora": lora,
        "lora_rank": lora_rank,
        "lora_alpha": lora_alpha,
        "init_from": init_from,
        "freeze_batchnorm": freeze_batchnorm or None,
        "scale": scale,
        "mean": numbers("--mean", mean),
        "std": numbers("--std", std),
        "resize": resize,
        "crop": crop,
        "augment": tuple(augment) if augment else None,
        "output": model_output,
        "example": sizes(input_size),
        "dequantize": dequantize or None,
    }
    wishes = _wishes({name: value for name, value in given.items() if value is not None})
    further: dict[str, Any] = {
        "memory_limit": memory_bytes(memory_limit),
        "batch_size": batch_size,
        "class_weights": _class_weights(class_weights, data),
        "average": average,
    }
    if is_model(source) and not set_:
        bundle, notes = build_model(source, output, wishes=wishes, seed=seed, **further)
        print_notes(notes)
    else:
        notes = []
        bundle = build_bundle(
            source, output, options=graph_options(set_), seed=seed, wishes=wishes, **further
        )
    manifest = bundle.manifest
    if manifest.memory is not None:
        print_notes([memory_words(manifest.memory)])
    parameters = sum(entry.size for entry in manifest.entries("parameter"))
    if json:
        record = {"bundle": str(bundle.path), "name": manifest.name, "parameters": parameters}
        print_json({**record, **({"notes": notes} if is_model(source) else {})})
        return
    typer.echo(f"{bundle.path}: network '{manifest.name}', {parameters:,} parameters.")
    typer.echo(f"Train it with `cnnc train {bundle.path}`.")


def _class_weights(text: str | None, data: str | None) -> Weights | None:
    if text is None:
        if data is not None:
            raise UsageError(
                "--data is for --class-weights balanced: a bundle keeps no data.",
                hint="Give --data to `cnnc train`.",
            )
        return None
    from cnnc.class_weights import ClassWeights as Weights

    return Weights(text, data)


def _wishes(given: dict[str, Any]) -> Wishes | None:
    if not given:
        return None
    from cnnc.foreign.training import Wishes

    return Wishes(**given)
