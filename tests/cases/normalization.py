"""Normalisation and dropout."""

from __future__ import annotations

from cases.row import case, fixed, graph

NORMALIZATION = [
    *(
        case(
            "BatchNormalizationTraining",
            *(x, "2", "2", fixed("2"), fixed("2", 0.5, 2.0)),
            projected=1,
            epsilon=epsilon,
            momentum=momentum,
        )
        for x in ("4 2", "N 2 5", "N 2 3 4", "N 2 2 3 2", "N 2 H W")
        for epsilon, momentum in ((1e-5, 0.9), (0.1, 0.25))
    ),
    case("BatchNormalization", "N 2 3 4", "2", "2", fixed("2"), fixed("2", 0.5, 2.0)),
    case("BatchNormalization", "N 2", "2", "2", fixed("2"), fixed("2", 0.5, 2.0), epsilon=0.1),
    case("BatchNormalization", "N 2 5", "2", "2", fixed("2"), fixed("2", 0.5, 2.0), epsilon=0.1),
    graph("DropoutMask", lambda op, x: op.Mul(x, op.DropoutMask(x, 7, 3, ratio=0.3, stream=5)), "N 4 3"),
]
