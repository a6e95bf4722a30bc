"""Calling the code of a graph file: what it raises and prints."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout

from cnnc.errors import GraphFileError
from cnnc.source import raised_line


@contextmanager
def users_code(what: str, where: str) -> Iterator[None]:
    """Within it runs the user's code; `what` says in words whose, such as "the model", and `where` it lies.

    What it raises, `sys.exit` too, becomes a GraphFileError with its innermost line; what it prints goes to
    standard error, since standard output belongs to the command.
    """
    try:
        with redirect_stdout(sys.stderr):
            yield
    except (GraphFileError, KeyboardInterrupt):
        raise
    except BaseException as error:
        said = f": {error}" if str(error) else ""
        raise GraphFileError(
            f"{what} raised {type(error).__name__}{said.rstrip('.')}.", where=raised_line(error) or where
        ) from error
