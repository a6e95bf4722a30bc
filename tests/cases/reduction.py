"""Reductions and running sums."""

from __future__ import annotations

from collections.abc import Callable

from cases.row import Input, case, normal, off_zero, positive, spaced, with_zeros

DRAWN: dict[str, Callable[[str], Input]] = {
    "ReduceSum": normal,
    "ReduceMean": normal,
    "ReduceMax": spaced,
    "ReduceMin": spaced,
    "ReduceProd": with_zeros,
    "ReduceL1": off_zero,
    "ReduceL2": off_zero,
    "ReduceSumSquare": normal,
    "ReduceLogSum": positive,
    "ReduceLogSumExp": normal,
}

REDUCTION = [
    case("ReduceProd", off_zero("N 4"), [1]),
    *(
        case(op, draw("N 3 2"), *axes, keepdims=keepdims)
        for op, draw in DRAWN.items()
        for keepdims, axes in [(0, []), (1, []), (0, [[1]]), (1, [[1]]), (0, [[-1, 0]]), (1, [[2, 0, 1]])]
    ),
    *(case(op, draw("N 3"), noop_with_empty_axes=1) for op, draw in DRAWN.items()),
    *(case(op, draw("N 2 H W"), [-2, -1]) for op, draw in DRAWN.items()),
    *(case(op, draw("N 2"), noop_with_empty_axes=1, keepdims=0) for op, draw in DRAWN.items()),
    case("ReduceSum", "N 3", [], noop_with_empty_axes=1),
    case("ReduceMax", spaced("N 3"), [], noop_with_empty_axes=1),
    case("ReduceL2", off_zero("N 3"), []),
    case("ReduceSum", "N H 2", [1]),
    *(
        case("CumSum", "N 4", axis, exclusive=exclusive, reverse=reverse)
        for axis in (0, -1)
        for exclusive in (0, 1)
        for reverse in (0, 1)
    ),
]
