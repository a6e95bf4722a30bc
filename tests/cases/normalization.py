"""Normalisation and dropout."""

from __future__ import annotations

from cases.row import case, fixed, graph, having, off_zero, positive

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
    case("BatchNormalization", "N 2 3 4", "2", "2", "2", positive("2"), epsilon=0.1),
    case("BatchNormalization", "N 2 H W", "2", "2", "2", fixed("2", 0.5, 2.0)),
    *(
        case(
            "BatchNormalization",
            *(x, "2", "2", fixed("2"), fixed("2", 0.5, 2.0)),
            outputs=3,
            training_mode=1,
            epsilon=0.1,
            momentum=momentum,
        )
        for x, momentum in (("4 2", 0.25), ("N 2 3", 0.9), ("N 2 H W", 0.5))
    ),
    *(
        case("InstanceNormalization", x, "2", "2", epsilon=epsilon)
        for x, epsilon in (("N 2 5", 1e-5), ("N 2 3 4", 0.1), ("N 2 2 3 2", 1e-5), ("N 2 H W", 1e-5))
    ),
    *(
        case("LayerNormalization", x, *affine, **attributes)
        for x, affine, attributes in [
            ("N 5", ["5", "5"], having()),
            ("N 2 3 4", ["4", "4"], having(epsilon=0.1)),
            ("N 2 3 4", ["3 4", "3 4"], having(axis=2)),
            ("N 3 4", ["3 4"], having(axis=-2)),
            ("N 3 4", ["3 1", "4"], having(axis=1)),
            ("N 3 4", ["4", "1 1"], having(axis=1)),
            ("2 3 4", ["2 3 4", "2 3 4"], having(axis=0)),
            ("N H W 3", ["3", "3"], having()),
            ("N 3 H", ["1", "1"], having()),
        ]
    ),
    *(case("LpNormalization", off_zero("N 4 3"), p=p, axis=axis) for p in (1, 2) for axis in (1, -1)),
    case("LpNormalization", "N 5"),
    case("LRN", "N 6 2 3", size=3, alpha=1.5),
    case("LRN", "N 7 2 2", size=5, alpha=0.5, beta=0.6, bias=2.0),
    case("LRN", "N 3 2 1", size=5, alpha=2.0),
    case("LRN", "N 4 H W", size=1, alpha=1.0),
    graph(
        "UniformDraws",
        lambda op, x: op.Mul(x, op.CastLike(op.UniformDraws(x, 7, 3, count=3, stream=5), x)),
        "N 3",
    ),
    graph("DropoutMask", lambda op, x: op.Mul(x, op.DropoutMask(x, 7, 3, ratio=0.3, stream=5)), "N 4 3"),
]
