"""Circular and hyperbolic functions."""

from __future__ import annotations

from cases.row import case, inside

TRIGONOMETRY = [
    *(case(op, "N 3") for op in ("Sin", "Cos", "Atan", "Sinh", "Cosh", "Asinh")),
    *(case(op, inside("N 3", -0.9, 0.9)) for op in ("Asin", "Acos", "Atanh")),
    case("Tan", inside("N 3", -1.25, 1.25)),
    case("Acosh", inside("N 3", 1.25, 4.0)),
]
