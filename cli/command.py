"""What all commands share: how they fail, and with which exit status.

::

    0    done
    1    failed: one paragraph on standard error says what, where and how to mend it
    2    wrong usage
    130  interrupted; a training run has saved its state and says how to go on

``--debug`` adds the traceback. With ``--json`` standard output stays empty where a command fails, except for
``cnnc verify`` and ``cnnc check``, whose report it is that runtimes disagree or that gradients are missing.
Paths are declared with ``readable=False``: a file that may not be read is no wrong usage.
"""

from __future__ import annotations

import sys
import traceback
from typing import Any

import typer
from typer.core import TyperCommand

from cnnc.errors import CnncError, Interrupted

INTERRUPTED = Interrupted.exit_status


class Command(TyperCommand):
    """A command whose errors are told in a paragraph. Each has a parameter `debug`, read here alone."""

    def invoke(self, ctx: Any) -> Any:
        """Call the command's function. Wrong usage that the parser finds never gets here: it exits with 2."""
        try:
            result = super().invoke(ctx)
            if sys.stdout is not None:  # as it is where the caller closed it
                sys.stdout.flush()  # while a reader that has gone is still an exception, which typer silences
            return result
        except (Exception, KeyboardInterrupt) as error:
            if isinstance(error, BrokenPipeError | typer.Exit | typer.Abort):
                raise
            if any(context.params.get("debug") for context in (ctx, ctx.parent)):
                traceback.print_exception(error)
            status, paragraph = told(error)
            typer.echo(paragraph, err=True)
            raise typer.Exit(status) from error


def told(error: BaseException) -> tuple[int, str]:
    """The exit status and the paragraph for an error that ended a command."""
    if isinstance(error, CnncError):
        text = " ".join(str(error).splitlines())
        return error.exit_status, text if isinstance(error, Interrupted) else f"error: {text}"
    if isinstance(error, KeyboardInterrupt):
        return INTERRUPTED, "interrupted."
    if isinstance(error, MemoryError):
        return 1, "error: this needs more memory than there is. Make the network or the batch smaller."
    if isinstance(error, OSError) and error.strerror:
        place = f"{error.filename}: " if error.filename else ""
        return 1, f"error: {place}the system refused this: {error.strerror}."
    what = " ".join(f"{type(error).__name__}: {error}".rstrip(": .").splitlines())
    return 1, (
        f"internal error: {what}. This is a bug in cnnc, not a fault of what you gave it. "
        "Please report it with the traceback, which the same command prints with --debug."
    )
