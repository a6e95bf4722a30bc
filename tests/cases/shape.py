"""Operators that move elements."""

from __future__ import annotations

from cases.row import case, graph

SHAPE = [
    case("Reshape", "N 6", [0, 2, 3]),
    case("Reshape", "2 6", [3, -1]),
    case("Reshape", "N 2 3", [-1, 3]),
    case("Reshape", "2 3", [6]),
    case("Flatten", "N 2 3"),
    case("Flatten", "N 2 3", axis=2),
    case("Flatten", "2 3 2", axis=0),
    case("Flatten", "2 3 2", axis=-1),
    case("Squeeze", "N 1 3 1", [1, -1]),
    case("Squeeze", "1 3 1"),
    case("Unsqueeze", "N 3", [0, -1]),
    case("Transpose", "N 2 3"),
    case("Transpose", "2 N 3 2", perm=[1, 3, 0, 2]),
    case("Concat", "N 2", "N 3", axis=1),
    case("Concat", "2 1 3", "2 2 3", "2 1 3", axis=-2),
    case("Concat", "N 2", "M 2", axis=0),
    case("Concat", "N 2", axis=0),
    graph("Concat", lambda op, x: op.Concat(x, x, axis=1), "N 2"),
    case("Slice", "N 5", [1], [4], [1]),
    case("Slice", "N 5 4", [-4, 1], [-1, 99], [-2, -1]),
    case("Slice", "5 4", [1, 2], [4, 4]),
    case("Slice", "5 4", [0], [-1], [1], [1]),
]
