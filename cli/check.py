"""``cnnc check``: what of an ONNX model can be trained, before anything is built."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from cnnc.cli.model_options import Dequantize, InputSize, ModelOutput, sizes
from cnnc.cli.options import Debug, Json
from cnnc.cli.output import counted, print_json, print_notes
from cnnc.errors import UnsupportedError

if TYPE_CHECKING:
    from cnnc.foreign.coverage import Coverage


def check(
    source: Annotated[str, typer.Argument(metavar="MODEL", help="An .onnx model.", show_default=False)],
    model_output: ModelOutput = None,
    input_size: InputSize = None,
    dequantize: Dequantize = False,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """List the operators of an ONNX model and whether each has a gradient.

    Exits with 1 where something is missing that training needs.
    """
    from cnnc.foreign.coverage import coverage

    report = coverage(source, output=model_output, example=sizes(input_size), dequantize=dequantize)
    print_notes(report.notes)
    if json:
        print_json(report.record())
    else:
        _print(report)
    if not report.ok:
        lacking = [row.operator for row in report.operators if row.on_path and not row.gradient]
        what = f"no gradient for {', '.join(lacking)}" if lacking else report.problems[0].rstrip(".")
        raise UnsupportedError(f"this model can't be trained as it is: {what}.", where=source)


def _print(report: Coverage) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("operator", overflow="fold")
    table.add_column("nodes", justify="right", no_wrap=True)
    table.add_column("differentiated", justify="right", no_wrap=True)
    table.add_column("gradient", overflow="fold")
    for row in report.operators:
        word = "yes" if row.gradient else "missing" if row.on_path else "not needed"
        table.add_row(row.operator, str(row.count), str(row.on_path), word)
    Console(highlight=False, markup=False).print(table)
    for line in [*(row.advice for row in report.operators if row.advice), *report.problems]:
        typer.echo(line)
    typer.echo(
        f"opset {report.opset}{f', by {report.producer}' if report.producer else ''}: "
        f"{counted(report.parameters, 'parameter')} of {report.elements:,} numbers."
    )
