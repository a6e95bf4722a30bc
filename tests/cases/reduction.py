"""Reductions."""

from __future__ import annotations

from cases.row import case

REDUCTION = [
    *(
        case(op, "N 3 2", *axes, keepdims=keepdims)
        for op in ("ReduceSum", "ReduceMean")
        for keepdims in (0, 1)
        for axes in ([], [[1]], [[-1, 0]], [[2, 0, 1]])
    ),
    case("ReduceSum", "N 3", [], noop_with_empty_axes=1),
    case("ReduceMean", "N 3", noop_with_empty_axes=1),
    case("ReduceMean", "N 2 H W", [-2, -1]),
    case("ReduceSum", "N H 2", [1]),
]
