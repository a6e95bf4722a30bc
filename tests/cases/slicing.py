"""Operators that cut something off, or put something around."""

from __future__ import annotations

from cases.row import case, fixed, graph, indices

FIRST, LAST = -(2**63), 2**63 - 1
"""Beyond the ends of any axis."""

SLICING = [
    case("Slice", "N 5", [1], [4], [1]),
    case("Slice", "N 5 4", [-4, 1], [-1, 99], [-2, -1]),
    case("Slice", "5 4", [1, 2], [4, 4]),
    case("Slice", "5 4", [0], [-1], [1], [1]),
    case("Slice", "N 6", [0], [LAST], [1], [2]),
    case("Slice", "N 6", [1], [LAST], [1], [2]),
    case("Slice", "N 7", [1], [5], [1], [3]),
    case("Slice", "N 5", [-1], [FIRST], [1], [-1]),
    case("Slice", "N 7", [-2], [0], [1], [-2]),
    case("Slice", "N 7", [9], [2], [-1], [-3]),
    case("Slice", "N 5 6 4", [0, 5, 1], [5, 0, 3], [1, 2, 3], [2, -2, 1]),
    case("Slice", "N 5", [0, 1], [LAST, 3], [0, 1]),
    case("Slice", "N H", [-1], [LAST], [0]),
    case("Slice", "N H W", [1, 0], [LAST, -1], [1, 2]),
    case("Slice", "N H W", [-3, 1], [-1, 3], [1, 2]),
    case("Slice", "N H W", [0, 1], [LAST, LAST], [1, 2], [2, 2]),
    case("Slice", "N H W", [-1, 3], [FIRST, 0], [1, 2], [-1, -2]),
    case("Slice", "N 5", indices("1", 1), [LAST], [1]),
    graph(
        "Slice",
        lambda op, x, like: op.Slice(x, [1, 0], op.Shape(like, start=1), [1, 2]),
        "N 5 4",
        fixed("N 3 2"),
    ),
    case("Pad", "N 3", [0, 1, 0, 2]),
    case("Pad", "2 3", [1, 0, 2, 1], 0.5),
    case("Pad", "2 3", [1, 0, 2, 1], ""),
    case("Pad", "N 3 4", [1, 2], "", [-1]),
    case("Pad", "N H 3", [2, 0, 0, 1], None, [1, 0]),
    case("Pad", "2 4", [1, -1, 0, 2]),
    case("Pad", "2 4", [1, -1, 0, 2], ""),
    case("Pad", "N 4", [0, -1, 0, -2]),
    case("Pad", "N H W", [1, -1, -1, 2], None, [1, 2]),
    *(
        case("Pad", x, *pads, mode=mode)
        for mode in ("edge", "reflect")
        for x, *pads in [
            ("N 4", [0, 2, 0, 1]),
            ("N 4", [0, 3, 0, 3]),
            ("4 3", [0, 0, 3, 2]),
            ("N 3 4", [1, 0, 2, 1], None, [-1, 1]),
            ("N H W", [1, 2, 0, 3], None, [1, 2]),
        ]
    ),
    case("Pad", "N 1", [0, 2, 0, 1], mode="edge"),
    graph("Pad", lambda op, x, like: op.Pad(x, op.Shape(like)), "N 3", fixed("2 1 2 2")),
    graph("Pad", lambda op, x, like: op.Pad(x, op.Neg(op.Shape(like)), None, [1]), "N 5", fixed("2 1")),
    graph("Pad", lambda op, x, v, like: op.Pad(x, op.Shape(like), v, [1]), "N 3", "", fixed("2 1")),
    case("Trilu", "N 4"),
    case("Trilu", "4 3", 1),
    case("Trilu", "N 3 4", -1, upper=0),
    case("Trilu", "2 3 3", indices("", 3), upper=0),
]
