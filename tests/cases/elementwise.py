"""Elementary functions, and arithmetic that broadcasts."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from cases.row import (
    case,
    conditions,
    fixed,
    graph,
    indices,
    inside,
    off_jumps,
    off_zero,
    positive,
    spaced,
    with_zeros,
)

ELEMENTWISE = [
    case("Identity", "N 3"),
    case("Neg", "N 3"),
    case("Reciprocal", off_zero("N 3")),
    case("Exp", "N 3"),
    case("Log", positive("N 3")),
    case("Sqrt", positive("N 3")),
    case("Erf", "N 3"),
    case("Abs", off_zero("N 3")),
    case("Cast", "N 3", to=int(ir.DataType.DOUBLE)),
    case("CastLike", "N 3", np.zeros(1)),
    case("Range", inside("", 0.1, 0.2), 4.6, inside("", 0.95, 0.97)),
    case("Range", inside("", 0.1, 0.2), -2.4, -0.5),
    graph("Range", lambda op, x: op.Mul(x, op.ReduceSum(op.Range(0.0, op.Exp(x), 1.0))), off_jumps("")),
    case("Clip", spaced("N 3"), -0.53, 0.27),
    case("Clip", spaced("N 3"), None, -0.33),
    case("Clip", spaced("N 3"), -0.33),
    case("Clip", "N 3"),
    case("Clip", spaced("N 3"), inside("", -0.59, -0.56), inside("", 0.21, 0.24)),
    case("Clip", spaced("N 3"), None, inside("", -0.34, -0.31)),
    case("Clip", spaced("N 3"), inside("", -0.34, -0.31)),
    case("Clip", spaced("N 4"), inside("", 0.21, 0.24), inside("", -0.34, -0.31)),
]

POWERS = [
    case("Pow", positive("N 3"), "N 3"),
    case("Pow", positive("N 1 3"), "2 1"),
    case("Pow", positive("3"), ""),
    *(case("Pow", with_zeros("N 3"), np.array(b, np.float32)) for b in (1.0, 2.0, 3.0)),
    *(case("Pow", off_zero("N 3"), np.array(b)) for b in (-1, -2, 4)),
    *(case("Pow", positive("N 3"), np.array(b, np.float32)) for b in (0.5, -0.5, 2.5)),
    case("Pow", with_zeros("N 3"), np.array([0, 1, 2])),
    case("Pow", off_zero("N 3"), indices("3", 4)),
    case("Pow", fixed("N 2", 0.5, 2.0), "N 2"),
]

BROADCAST = [
    case("Add", "N 3", "N 3"),
    case("Add", "N 3 4", "3 1"),
    case("Add", "4", "N 3 4"),
    case("Add", "N 1 4", "3 1"),
    case("Add", "", "N 2"),
    case("Sub", "N 3", "N 3"),
    case("Sub", "1 3", "N 3"),
    case("Sub", "N 2 3", "1 1 3"),
    case("Mul", "N 3", "N 3"),
    case("Mul", "N 3", ""),
    case("Mul", "3 1 2", "N 1 4 1"),
    case("Mul", "1", "2 1"),
    case("Div", "N 3", off_zero("N 3")),
    case("Div", "3", off_zero("N 1")),
    case("Div", "N 2 3", off_zero("")),
    case("Mod", off_jumps("N 3"), inside("3", 0.9, 0.95), fmod=1),
    case("Mod", off_jumps("3"), inside("N 1", -1.05, -1.02), fmod=1),
    case("Sum", "N 3", "1 3", "N 1", ""),
    case("Sum", "2 3"),
    case("Mean", "N 3", "1 3", "N 1", ""),
    case("Mean", "2 3"),
    *(
        row
        for op in ("Max", "Min")
        for row in (
            case(op, spaced("N 3"), spaced("N 3", offset=0.05)),
            case(op, spaced("N 3"), spaced("3", offset=0.03), spaced("", offset=0.07)),
            case(op, spaced("N 3"), 0.03),
            case(op, "N 3"),
        )
    ),
    case("Where", conditions("N 3"), "N 3", "N 3"),
    case("Where", conditions("N 1"), "3", ""),
    case("Where", conditions("2 1 3"), "N 1", "N 2 1 1"),
    case("Where", np.array([True, False, True]), "3", "N 3"),
    graph("Where", lambda op, x: op.Where(op.Greater(x, 0.0), op.Mul(x, x), x), off_zero("N 3")),
    graph("Mul", lambda op, x: op.Mul(x, x), "N 3"),
    graph("Add", lambda op, x: op.Add(x, op.Add(x, x)), "N 3"),
    graph("Div", lambda op, x: op.Div(x, op.Sum(x, x, op.Mul(x, x))), positive("N 3")),
    graph("Sub", lambda op, x, b: op.Sub(op.Mul(b, x), b), "N 3 2", "2"),
]
