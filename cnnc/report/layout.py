"""Which rows of a training graph are drawn together, and where the lines that skip rows run."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from cnnc.report.graph import TrainingGraph

FEW_ROWS = 24
"""A graph of no more rows is shown row by row."""
MOST_RAILS = 8
_STARTERS = {"Conv", "ConvTranspose", "Gemm", "MatMul", "Einsum"}

Flow = Literal["forward", "backward"]


@dataclass(frozen=True)
class Rail:
    """A vertical line in column `column` beside the boxes: one row's value to later rows, past others.

    `end` is the row at its other end, further down, and `taps` all rows below `start` that it reaches. In the
    backward pass the arrows point the other way: gradients from all `taps` up to `start`.
    """

    start: int
    taps: tuple[int, ...]
    column: int

    @property
    def end(self) -> int:
        """The last row it reaches."""
        return self.taps[-1]


@dataclass(frozen=True)
class Span:
    """Rows `first` to `last`, both included, drawn as one where the reader folds them up."""

    first: int
    last: int


def rails(edges: Iterable[tuple[int, int]]) -> tuple[Rail, ...]:
    """Rails for the edges (in either direction) between rows that are no neighbours.

    Rails that overlap get columns of their own, up to `MOST_RAILS`; from there on they share the last.
    """
    reached: dict[int, set[int]] = {}
    for edge in edges:
        start, end = sorted(edge)
        if end > start + 1:
            reached.setdefault(start, set()).add(end)
    made: list[Rail] = []
    free_from: list[int] = []
    for start, ends in sorted(reached.items()):
        column = next((c for c, row in enumerate(free_from) if row <= start), len(free_from))
        if column == len(free_from):
            free_from.append(0)
        free_from[column] = max(ends)
        made.append(Rail(start, tuple(sorted(ends)), min(column, MOST_RAILS - 1)))
    return tuple(made)


def spans(graph: TrainingGraph) -> tuple[Span, ...]:
    """The rows of `graph` in groups: each row by itself where there are few, else block by block.

    A block ends where all that passes on comes from one row: a residual block is one, with its shortcut. A
    layer that keeps the shape (a normalisation, an activation) belongs to the block before it.
    """
    count = len(graph.rows)
    singles = tuple(Span(i, i) for i in range(count))
    if count <= FEW_ROWS:
        return singles
    body = graph.loss if graph.loss is not None else count
    found: list[Span] = []
    first = 0
    for row in range(body):
        if row + 1 < body and len({a for a, b in graph.forward if a <= row < b < body}) > 1:
            continue
        block = Span(first, row)
        first = row + 1
        if found and block.first == block.last and _follows(graph, row):
            block = Span(found.pop().first, row)
        found.append(block)
    return (*found, *singles[body:])


def _follows(graph: TrainingGraph, row: int) -> bool:
    """Whether `row` changes no shape and multiplies by no weights: it belongs to what is before it."""
    here, before = (graph.rows[i].boxes["forward"] for i in (row, row - 1))
    return bool(here and before) and here[0].shape == before[-1].shape and not _STARTERS & set(here[0].ops)
