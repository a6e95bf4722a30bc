"""Every error cnnc raises on purpose.

::

    CnncError                 anything a user can mend; the command line prints it and exits with 1
    ├── UsageError            the call itself is wrong (an unknown option value); exits with 2
    ├── GraphFileError        a Python graph file can't be loaded or has no usable `program`
    │   └── ShapeError        shapes, sizes or names in the user's network don't fit
    ├── ModelError            an .onnx model can't be read, is invalid, or can't be trained
    │   └── UnsupportedError  an operator or attribute without a gradient or a legal body
    ├── DataError             a data set is missing, damaged, or doesn't fit the graph's input
    ├── BundleError           a bundle is missing, incomplete, altered or of another version
    ├── RunError              a run directory can't be used, read or written
    │   └── DivergedError     the loss or the state became NaN or infinite
    ├── ProviderError         the execution provider asked for isn't available
    ├── ParityError           two runtimes, or a run and its export, disagree beyond the tolerance
    └── Interrupted           the user stopped a run, whose state is saved; exits with 130

A message says what is wrong, where, and how to mend it, in one paragraph.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager


class CnncError(Exception):
    """Base of all errors a user can mend.

    ``CnncError(what, where=…, hint=…)``: `where` names the user's file and line or the file on disk,
    `hint` says what to change. ``str()`` is the whole paragraph.
    """

    exit_status = 1

    def __init__(self, what: str, *, where: str = "", hint: str = "") -> None:
        self.what, self.where, self.hint = what, where, hint
        super().__init__(what)

    def __str__(self) -> str:
        place = f"{self.where}: " if self.where else ""
        mend = f" {self.hint}" if self.hint else ""
        return f"{place}{self.what}{mend}"


class UsageError(CnncError):
    """The call itself is wrong."""

    exit_status = 2


class GraphFileError(CnncError):
    """A Python graph file can't be loaded or has no usable ``program``."""


class ShapeError(GraphFileError):
    """Shapes, sizes or names in the user's network don't fit."""


class ModelError(CnncError):
    """An ONNX model can't be read, is invalid, or can't be trained."""


class UnsupportedError(ModelError):
    """An operator or attribute has no gradient rule or no legal body."""


class DataError(CnncError):
    """A data set is missing, damaged, or doesn't fit the graph's input."""


class BundleError(CnncError):
    """A bundle is missing, incomplete, altered or of another version."""


class RunError(CnncError):
    """A run directory can't be used, read or written."""


class DivergedError(RunError):
    """The loss or the state became NaN or infinite."""


class ProviderError(CnncError):
    """The execution provider asked for isn't available."""


class ParityError(CnncError):
    """Two runtimes, or a run and its export, disagree beyond the tolerance."""


class Interrupted(CnncError):  # noqa: N818 -- the user's wish, not an error
    """The user stopped a run; its state is saved and it can go on."""

    exit_status = 130


@contextmanager
def os_errors_as(
    kind: type[CnncError], what: str, *, where: str | os.PathLike[str] = "", hint: str = ""
) -> Iterator[None]:
    """Raise an OSError within as `kind`, such as ``the run can't be written: No space left on device.``"""
    try:
        yield
    except OSError as error:
        raise kind(f"{what}: {error.strerror or error}.", where=os.fspath(where), hint=hint) from error


def did_you_mean(name: str, known: Iterable[str], unlisted: Iterable[str] = ()) -> str:
    """A hint with the nearest name: ``Did you mean 'x'?``, or all that are `known` where none is near."""
    names = sorted(known)
    near = difflib.get_close_matches(name, [*names, *sorted(unlisted)], n=1)
    if near:
        return f"Did you mean '{near[0]}'?"
    return f"Known: {', '.join(names)}." if names else ""
