"""Names of nodes and values: each once in a graph."""

from __future__ import annotations


def unique(name: str, taken: set[str]) -> str:
    """`name`, or ``name_2``, ``name_3``, … if it is `taken`; the result is from now on."""
    candidate, count = name, 1
    while candidate in taken:
        count += 1
        candidate = f"{name}_{count}"
    taken.add(candidate)
    return candidate
