"""``cnnc summary``: the layers of a network and what computes their gradients."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cnnc.cli.options import Debug, Json, Set, graph_options
from cnnc.cli.output import print_json

if TYPE_CHECKING:
    from cnnc.bundle import Bundle, FunctionSpec
    from cnnc.summary import LayerSummary, NetworkSummary


def summary(
    source: Annotated[
        str, typer.Argument(metavar="SOURCE|BUNDLE", help="A graph file, its name, or a bundle.")
    ],
    cost: Annotated[
        bool, typer.Option("--cost", help="Measure a step on random data, and show the time of each layer.")
    ] = False,
    batch_size: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Examples of that step (32).")
    ] = None,
    set_: Set = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Show layers, shapes, parameters, FLOPs and gradient ops, with --cost also what they take."""
    from cnnc.build import opened
    from cnnc.summary import summarise

    with opened(source, options=graph_options(set_)) as bundle:
        network = summarise(bundle)
        costs = _costs(bundle, batch_size) if cost else {}
    if json:
        print_json({**network.record(), **({"milliseconds": costs} if cost else {})})
    else:
        _print(network, costs)


def _costs(bundle: Bundle, batch: int | None) -> dict[str, float]:
    """Milliseconds of each layer in a step on the CPU, forward, backward and update; see ``cnnc bench``."""
    from cnnc.profiling import Subject, bench

    fixed = bundle.manifest.input.shape[0]
    size = batch or (fixed if isinstance(fixed, int) else 32)
    profile = bench(Subject.of_bundle(bundle, "train", size), device="cpu").profile
    assert profile is not None
    return {row.layer: row.total for row in profile.rows}


def _print(network: NetworkSummary, costs: Mapping[str, float]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), show_footer=True)
    table.add_column("layer", "total", overflow="fold")
    table.add_column("output", overflow="fold")
    table.add_column("parameters", f"{network.parameters:,}", justify="right", no_wrap=True)
    table.add_column("FLOPs", _short(network.flops), justify="right", no_wrap=True)
    table.add_column("gradient op · body", overflow="fold")
    if costs:
        table.add_column("ms", f"{sum(costs.values()):.2f}", justify="right", no_wrap=True)

    left = dict(costs)

    def row(name: str, *cells: str) -> None:
        took = [f"{left.pop(name):.2f}" if name in left else ""] if costs else []
        table.add_row(name, *cells, *took)

    row(network.input.name, _dims(network.input.shape), "", "", "")
    for layer in network.layers:
        row(
            layer.name,
            _dims(layer.output),
            f"{layer.parameters:,}" if layer.parameters else "",
            _short(2 * layer.multiply_adds) if layer.multiply_adds else "",
            "\n".join(_gradients(layer)),
        )
    row("loss", "", "", "", "\n".join(_functions(network.loss)))
    row("update", "", "", "", "\n".join(_functions(network.update)))
    Console(highlight=False, markup=False).print(table)
    if network.augment:
        typer.echo(f"Training examples are augmented: {', '.join(map(_words, network.augment))}.")
    if network.average is not None:
        typer.echo(f"A moving average, decay {network.average:g}, is evaluated and exported.")
    typer.echo(
        f"{network.trained:,} of the parameters are trained. Shapes and FLOPs are those of one example;"
    )
    typer.echo("FLOPs are two for each multiply-add of convolutions and dense layers, forward.")


def _words(value: Any) -> str:
    """What the manifest says of an augmentation, as a graph file would: ``RandomCrop(padding=(4, 4))``."""
    if isinstance(value, dict):
        fields = (f"{name}={_words(field)}" for name, field in value.items() if name != "name")
        return f"{value['name']}({', '.join(fields)})"
    if isinstance(value, list | tuple):
        return f"({', '.join(map(_words, value))})"
    return str(value)


def _gradients(layer: LayerSummary) -> Iterable[str]:
    yield from _functions(layer.functions)
    if layer.standard:
        yield f"standard: {', '.join(layer.standard)}"


def _functions(functions: Iterable[FunctionSpec]) -> Iterable[str]:
    """Each op with its body, and how often where it is more than once."""
    for (op, body), count in Counter((f.op, f.body) for f in functions).items():
        yield f"{op} · {body}" + (f" ×{count}" if count > 1 else "")


def _dims(shape: tuple[int | str, ...]) -> str:
    """The shape of one example: ``32×26×26``."""
    return "×".join(map(str, shape[1:])) or "scalar"


def _short(count: int) -> str:
    """A count with a prefix: ``389 k``, ``81.6 M``."""
    for unit, name in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if count >= unit:
            return f"{count / unit:.3g} {name}"
    return str(count)
