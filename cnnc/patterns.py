"""Choosing parameters by name: regular expressions that match whole names, checked."""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Sequence

from cnnc.errors import CnncError, UsageError


def matching(
    owner: str, pattern: str, names: Collection[str], error: type[CnncError] = UsageError, where: str = ""
) -> list[str]:
    """Those of `names` that `pattern` matches as a whole, in their order.

    Raises `error`, in which `owner` is what the user wrote the pattern for, where it is no regular expression
    or matches nothing.
    """
    try:
        found = [name for name in names if re.fullmatch(pattern, name)]
    except re.error as why:
        raise error(f"{owner} '{pattern}' is no regular expression: {why}.", where=where) from why
    if not found:
        raise error(f"{owner} '{pattern}' matches no parameter.", where=where, hint=_nearest(pattern, names))
    return found


def few(names: Sequence[str]) -> str:
    """The first names of a list that may be long."""
    return ", ".join(names[:8]) + (f", … ({len(names)} in all)" if len(names) > 8 else "")


def _nearest(pattern: str, names: Collection[str]) -> str:
    """A hint: the name, or the beginning of names, that is nearest to what the pattern says literally."""
    literal = re.sub(r"[\\^$*+?(){}|\[\]]", "", pattern).strip("./")
    beginnings = {
        name[: end.start()]: f"{re.escape(name[: end.start()])}.*"
        for name in names
        for end in re.finditer(r"[./]", name)
    }
    candidates = beginnings | {name: name for name in names}
    if near := difflib.get_close_matches(literal, candidates, n=1, cutoff=0.75):
        return f"Did you mean '{candidates[near[0]]}'?"
    return f"There are: {few(sorted(names))}." if names else "There are none."
