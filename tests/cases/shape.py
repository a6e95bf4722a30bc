"""Operators that move all elements."""

from __future__ import annotations

import numpy as np

from cases.row import case, fixed, graph

SHAPE = [
    case("Reshape", "N 6", [0, 2, 3]),
    case("Reshape", "2 6", [3, -1]),
    case("Reshape", "N 2 3", [-1, 3]),
    case("Reshape", "2 3", [6]),
    case("Reshape", "H W", [-1]),
    case("Reshape", "N H W", [0, -1]),
    case("Reshape", "N 2 3", [-1, 6], allowzero=1),
    case("Flatten", "N 2 3"),
    case("Flatten", "N 2 3", axis=2),
    case("Flatten", "N 2 H"),
    case("Flatten", "N H W"),
    case("Flatten", "2 3 2", axis=0),
    case("Flatten", "2 3 2", axis=-1),
    case("Squeeze", "N 1 3 1", [1, -1]),
    case("Squeeze", "1 3 1"),
    case("Squeeze", "N 1 H W", [1]),
    case("Unsqueeze", "N 3", [0, -1]),
    case("Transpose", "N 2 3"),
    case("Transpose", "2 N 3 2", perm=[1, 3, 0, 2]),
    case("Concat", "N 2", "N 3", axis=1),
    case("Concat", "2 1 3", "2 2 3", "2 1 3", axis=-2),
    case("Concat", "N 2", "M 2", axis=0),
    case("Concat", "2 H 3", "2 W 3", axis=1),
    case("Concat", "N 2", axis=0),
    graph("Concat", lambda op, x: op.Concat(x, x, axis=1), "N 2"),
    case("Split", "N 5", [2, 3], axis=1, outputs=2, projected=2),
    case("Split", "4 3", outputs=2, projected=2, num_outputs=2),
    case("Split", "N 5", axis=-1, outputs=3, projected=3, num_outputs=3),
    case("Split", "N 6", [1, 2, 3], axis=1, outputs=3, projected=1),
    graph("Split", lambda op, x: op.Split(x, [1, 2, 3], axis=1, outputs=3)[1], "N 6"),
    graph("Split", lambda op, x: op.Split(x, [2, 2], axis=0, outputs=2)[1], "4 H W"),
    case("Expand", "3 1", [2, 3, 4]),
    case("Expand", "2 3", [1, 1]),
    case("Expand", "N 1 3", [1, 2, 1]),
    case("Tile", "2 3", [2, 3]),
    case("Tile", "N 3", [1, 2]),
    case("Tile", "N 3 2", [2, 1, 3]),
    case("Tile", "N H", [3, 2]),
    case("Tile", "N 3", [1, 1]),
    graph("Tile", lambda op, x, like: op.Tile(x, op.Shape(like)), "N 3", fixed("2 3")),
    *(
        case("DepthToSpace", x, blocksize=2, mode=mode)
        for mode in ("DCR", "CRD")
        for x in ("N 4 2 3", "2 8 1 2", "N 12 H W")
    ),
    case("DepthToSpace", "N 9 2 1", blocksize=3),
    case("SpaceToDepth", "N 2 4 6", blocksize=2),
    case("SpaceToDepth", "1 1 6 3", blocksize=3),
    graph("SpaceToDepth", lambda op, x: op.SpaceToDepth(op.Concat(x, x, axis=2), blocksize=2), "N 2 H W"),
    graph("Identity", lambda op, x: op.Mul(op.Identity(x), np.array([1.0, 2.0])), "N 2"),
]
