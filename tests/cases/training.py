"""Losses and the updates of optimizers."""

from __future__ import annotations

from cases.row import case, fixed, labels

LOSSES = [
    case("SoftmaxCrossEntropy", "N 5", labels("N", 5), label_smoothing=0.0),
    case("SoftmaxCrossEntropy", "N 5", labels("N", 5), label_smoothing=0.2),
    case("SoftmaxCrossEntropy", "N 4 3", labels("N 3", 4), label_smoothing=0.1),
    case("SoftmaxCrossEntropy", "N 2 H W", labels("N H W", 2), label_smoothing=0.0),
    case("SoftmaxCrossEntropy", "N 5", labels("N", 5), fixed("5", 0.1, 2.0), label_smoothing=0.2),
    case("SoftmaxCrossEntropy", "N 3 H W", labels("N H W", 3), fixed("3", 0.1, 2.0), label_smoothing=0.0),
]

RATE = fixed("", 0.01, 0.1)

UPDATES = [
    case("SGDUpdate", fixed("2 3"), fixed("2 3"), RATE, weight_decay=0.0),
    case("SGDUpdate", fixed("2 3"), fixed("2 3"), RATE, weight_decay=0.3),
    *(
        case(
            "MomentumUpdate",
            *(fixed("4"), fixed("4"), fixed("4"), RATE),
            momentum=0.9,
            nesterov=nesterov,
            weight_decay=decay,
        )
        for nesterov in (0, 1)
        for decay in (0.0, 0.3)
    ),
    *(
        case(
            "AdamUpdate",
            *(fixed("2 3"), fixed("2 3"), fixed("2 3"), fixed("2 3", 0.0, 1.0)),
            *(RATE, fixed("", 0.1, 0.9), fixed("", 0.01, 0.9)),
            beta1=0.9,
            beta2=0.99,
            epsilon=1e-3,
            weight_decay=decay,
            decoupled_decay=decoupled,
        )
        for decay, decoupled in ((0.0, 0.0), (0.3, 0.0), (0.0, 0.3))
    ),
    *(
        case(
            "NAdamUpdate",
            *(fixed("2 3"), fixed("2 3"), fixed("2 3"), fixed("2 3", 0.0, 1.0), fixed("", 0.3, 0.5)),
            *(RATE, fixed("", 0.01, 0.9), fixed("", 0.4, 0.9), fixed("", 0.4, 0.9)),
            beta1=0.9,
            beta2=0.99,
            epsilon=1e-3,
            weight_decay=decay,
        )
        for decay in (0.0, 0.3)
    ),
    *(
        case(
            "LambUpdate",
            *(fixed("2 3", scale, 2 * scale), fixed("2 3"), fixed("2 3"), fixed("2 3", 0.0, 1.0)),
            *(RATE, fixed("", 0.1, 0.9), fixed("", 0.01, 0.9)),
            beta1=0.9,
            beta2=0.99,
            epsilon=1e-3,
            decoupled_decay=decay,
            adapt=adapt,
        )
        for scale, decay, adapt in ((1.0, 0.3, True), (1.0, 0.3, False), (0.0, 0.0, True))
    ),
    *(
        case(
            "LionUpdate",
            *(fixed("2 3"), fixed("2 3"), fixed("2 3"), RATE),
            beta1=0.9,
            beta2=0.99,
            decoupled_decay=decay,
        )
        for decay in (0.0, 0.3)
    ),
    *(
        case(
            op,
            *(fixed("4"), fixed("4"), fixed("4", 1.0, 2.0), *averages, RATE, *buffer),
            rho=0.9,
            momentum=0.8,
            epsilon=1e-3,
            weight_decay=0.3,
        )
        for op, averages in (("RMSpropUpdate", ()), ("CenteredRMSpropUpdate", (fixed("4"),)))
        for buffer in ((), (fixed("4"),))
    ),
    case(
        "AdagradUpdate",
        *(fixed("2 3"), fixed("2 3"), fixed("2 3", 0.0, 1.0), RATE),
        epsilon=1e-3,
        weight_decay=0.3,
    ),
    case(
        "AdadeltaUpdate",
        *(fixed("2 3"), fixed("2 3"), fixed("2 3", 0.0, 1.0), fixed("2 3", 0.0, 1.0), RATE),
        rho=0.9,
        epsilon=1e-3,
        weight_decay=0.3,
    ),
    *(
        case(
            "AdafactorUpdate",
            *(fixed(dims, low, 1.0), fixed(dims), fixed(rows, 0.0, 1.0)),
            *(RATE, fixed("", 0.1, 0.9), fixed("", 0.01, 0.1), *columns),
            epsilon=1e-3,
            minimum=0.1,
            clip_threshold=0.8,
            decoupled_decay=0.3,
        )
        for dims, rows, columns, low in (
            ("4", "4", (), 0.5),
            ("4 3", "4 1", (fixed("1 3", 0.0, 1.0),), 0.5),
            ("2 3 4 5", "2 3 4 1", (fixed("2 3 1 5", 0.0, 1.0),), -1.0),
        )
    ),
]
