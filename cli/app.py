"""The program: its commands and its own options."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable, Sequence
from typing import Annotated

import typer

from cnnc import __version__
from cnnc.cli.bench import bench
from cnnc.cli.build import build
from cnnc.cli.check import check
from cnnc.cli.command import Command
from cnnc.cli.data import app as data
from cnnc.cli.doctor import doctor
from cnnc.cli.eval import evaluate
from cnnc.cli.export import export
from cnnc.cli.lr_find import lr_find
from cnnc.cli.new import new
from cnnc.cli.options import Debug
from cnnc.cli.predict import predict
from cnnc.cli.report import report
from cnnc.cli.runs import runs
from cnnc.cli.summary import summary
from cnnc.cli.train import train
from cnnc.cli.tune import tune
from cnnc.cli.verify import verify

# Plain help and usage errors: no boxes around text that is piped, searched or pasted, and no import of rich.
app = typer.Typer(
    help="Train a CNN with ONNX Runtime: cnnc compiles the whole training step to plain ONNX.",
    epilog="`cnnc train` alone trains a small network on handwritten digits.",
    add_completion=True,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
COMMANDS: dict[str, Callable[..., None]] = {
    "new": new,
    "build": build,
    "check": check,
    "tune": tune,
    "train": train,
    "lr-find": lr_find,
    "eval": evaluate,
    "predict": predict,
    "export": export,
    "verify": verify,
    "summary": summary,
    "runs": runs,
    "report": report,
    "bench": bench,
    "doctor": doctor,
}
for name, function in COMMANDS.items():
    app.command(name, cls=Command)(function)
app.add_typer(data, name="data")


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"cnnc {__version__}")
        raise typer.Exit


@app.callback()
def cnnc(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit."),
    ] = False,
    debug: Debug = False,
) -> None:
    """Options that stand before a command; `Command` reads --debug."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line `arguments` (None: those of the process) and exit with its status."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A terminal or locale that lacks a character gets its escape, not an exception.
            stream.reconfigure(errors="backslashreplace")
    app(args=arguments, prog_name="cnnc")
