"""Checks of what a user writes in a graph file: each returns the value, or raises with file and line."""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Iterable
from numbers import Real
from typing import Any

from cnnc.errors import GraphFileError, did_you_mean
from cnnc.source import user_line

RESERVED = frozenset(
    {"gradient", "label", "loss", "lr_scale", "output", "probabilities", "seed", "step", "target"}
)
"""The graphs' own inputs and outputs."""


def integer(
    owner: str, field: str, value: Any, least: int = 1, error: type[GraphFileError] = GraphFileError
) -> int:
    """`value` as an int of at least `least`; `owner` and `field` name it in the error."""
    try:
        if isinstance(value, bool):
            raise TypeError
        number = operator.index(value)
    except TypeError:
        raise error(f"{owner}: {field} must be an integer, not {value!r}.", where=user_line()) from None
    if number < least:
        raise error(f"{owner}: {field} must be at least {least}, not {number}.", where=user_line())
    return number


def real(
    owner: str,
    field: str,
    value: Any,
    least: float = 0.0,
    below: float = math.inf,
    positive: bool = False,
) -> float:
    """`value` as a finite float in [`least`, `below`), or above 0 where it must be `positive`."""
    number = math.nan
    if isinstance(value, Real) and not isinstance(value, bool):  # NumPy's numbers are real, too
        number = float(value)
    if not (math.isfinite(number) and least <= number < below and (number > 0 or not positive)):
        low = "above 0" if positive else f"at least {least:g}"
        high = f" and below {below:g}" if math.isfinite(below) else ""
        raise GraphFileError(
            f"{owner}: {field} must be a number {low}{high}, not {value!r}.", where=user_line()
        )
    return number


def interval(
    owner: str,
    field: str,
    value: Any,
    least: float = 0.0,
    most: float = math.inf,
    positive: bool = False,
) -> tuple[float, float]:
    """`value` as (low, high), finite floats of `least` ≤ low ≤ high ≤ `most`, above 0 where `positive`."""
    if not isinstance(value, tuple | list) or len(value) != 2:
        raise GraphFileError(
            f"{owner}: {field} must be a range (low, high), not {value!r}.", where=user_line()
        )
    low, high = (real(owner, f"each of {field}", end, least, positive=positive) for end in value)
    if not low <= high <= most:
        limit = f" ≤ {most:g}" if math.isfinite(most) else ""
        raise GraphFileError(
            f"{owner}: {field} must be a range (low, high) with low ≤ high{limit}, not {value!r}.",
            where=user_line(),
        )
    return low, high


def probability(owner: str, field: str, value: Any) -> float:
    """`value` as a float in [0, 1]."""
    number = real(owner, field, value)
    if number > 1.0:
        raise GraphFileError(f"{owner}: {field} must be in [0, 1], not {value!r}.", where=user_line())
    return number


def one_of(
    owner: str, field: str, value: Any, known: Iterable[str], error: type[GraphFileError] = GraphFileError
) -> str:
    """`value` where it is one of the `known` names."""
    names = list(known)
    if value not in names:
        raise error(
            f"{owner}: there is no {field} {value!r}.",
            where=user_line(),
            hint=did_you_mean(str(value), names),
        )
    return str(value)


def identifier(owner: str, field: str, value: Any, error: type[GraphFileError] = GraphFileError) -> str:
    """`value` where it can name a layer or a tensor."""
    if not isinstance(value, str) or not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_.-]*", value):
        raise error(
            f"{owner}: {field} {value!r} can't be used.",
            where=user_line(),
            hint="A name begins with a letter and goes on with letters, digits, '_', '.' and '-'.",
        )
    if value in RESERVED:
        raise error(
            f"{owner}: {field} '{value}' is the name of an input or output that every graph has.",
            where=user_line(),
            hint="Choose another name.",
        )
    return value


def an(word: str) -> str:
    """`word` with its article."""
    return f"an {word}" if word[0] in "aeiouAEIOU" else f"a {word}"


def kind_of(value: object) -> str:
    """What `value` is, as errors name it: ``an int``, ``a list``, ``None``."""
    return "None" if value is None else an(type(value).__name__)


def expect(name: str, value: Any, kind: type, example: str) -> None:
    """Raise GraphFileError unless the field `name` of a Program is a `kind`."""
    if not isinstance(value, kind):
        raise field_error(name, value, f"{an(kind.__name__)}, such as {example}")


def field_error(name: str, value: Any, expected: str) -> GraphFileError:
    """An error about a Program's field of the wrong type; one that forgot to call a class says so."""
    if isinstance(value, type):
        what, hint = f"the class {value.__name__} itself", f"Write {value.__name__}(…)."
    else:
        what, hint = repr(value), ""
    return GraphFileError(f"Program: {name} must be {expected}, not {what}.", where=user_line(), hint=hint)
