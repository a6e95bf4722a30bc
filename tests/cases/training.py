"""Losses and the updates of optimizers."""

from __future__ import annotations

from cases.row import case, fixed, labels

LOSSES = [
    case("SoftmaxCrossEntropy", "N 5", labels("N", 5), label_smoothing=0.0),
    case("SoftmaxCrossEntropy", "N 5", labels("N", 5), label_smoothing=0.2),
    case("SoftmaxCrossEntropy", "N 4 3", labels("N 3", 4), label_smoothing=0.1),
    case("SoftmaxCrossEntropy", "N 2 H W", labels("N H W", 2), label_smoothing=0.0),
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
]
