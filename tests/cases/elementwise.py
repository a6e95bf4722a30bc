"""Elementwise operators, and arithmetic that broadcasts."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from cases.row import case, graph, off_zero, positive

ELEMENTWISE = [
    case("Identity", "N 3"),
    case("Neg", "N 3"),
    case("Exp", "N 3"),
    case("Log", positive("N 3")),
    case("Sqrt", positive("N 3")),
    case("Erf", "N 3"),
    case("Relu", off_zero("N 3 2")),
    case("LeakyRelu", off_zero("N 3")),
    case("LeakyRelu", off_zero("N 3"), alpha=0.2),
    case("Sigmoid", "N 3"),
    case("Tanh", "N 3"),
    case("Softplus", "N 3"),
    case("Abs", off_zero("N 3")),
    case("Cast", "N 3", to=int(ir.DataType.DOUBLE)),
    case("CastLike", "N 3", np.zeros(1)),
    case("Softmax", "N 5"),
    case("Softmax", "N 4 3", axis=1),
    case("Softmax", "2 3 2", axis=-3),
    case("LogSoftmax", "N 5"),
    case("LogSoftmax", "N 4 3", axis=1),
    case("LogSoftmax", "2 3 2", axis=-2),
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
    case("Sum", "N 3", "1 3", "N 1", ""),
    case("Sum", "2 3"),
    case("Expand", "3 1", [2, 3, 4]),
    case("Expand", "2 3", [1, 1]),
    graph("Mul", lambda op, x: op.Mul(x, x), "N 3"),
    graph("Add", lambda op, x: op.Add(x, op.Add(x, x)), "N 3"),
    graph("Div", lambda op, x: op.Div(x, op.Sum(x, x, op.Mul(x, x))), positive("N 3")),
    graph("Sub", lambda op, x, b: op.Sub(op.Mul(b, x), b), "N 3 2", "2"),
]
