"""Activations."""

from __future__ import annotations

from cases.row import case, inside, off_jumps, off_zero

ACTIVATIONS = [
    case("Relu", off_zero("N 3 2")),
    case("LeakyRelu", off_zero("N 3")),
    *(case("LeakyRelu", off_zero("N 3"), alpha=alpha) for alpha in (0.0, 0.25, -0.5, 2.0)),
    case("PRelu", off_zero("N 3"), "3"),
    case("PRelu", off_zero("N 2 3 4"), "2 1 1"),
    case("PRelu", off_zero("N 3"), ""),
    case("PRelu", off_zero("N 2 H W"), "1"),
    case("ThresholdedRelu", off_jumps("N 3")),
    case("ThresholdedRelu", off_jumps("N 3"), alpha=-0.5),
    case("Shrink", off_jumps("N 3"), lambd=1.0, bias=1.0),
    case("Shrink", off_jumps("N 3")),
    case("Shrink", off_jumps("N 3"), lambd=-1.0, bias=0.25),
    case("Elu", off_zero("N 3")),
    case("Elu", off_zero("N 3"), alpha=0.25),
    case("Elu", off_zero("N 3"), alpha=-0.5),
    case("Selu", off_zero("N 3")),
    case("Selu", off_zero("N 3"), alpha=0.5, gamma=2.0),
    case("Sigmoid", "N 3"),
    case("HardSigmoid", off_jumps("N 4"), alpha=0.25),
    case("HardSigmoid", off_jumps("N 4"), alpha=-0.5, beta=0.25),
    case("HardSwish", inside("N 3", -2.75, 2.75)),
    case("HardSwish", inside("N 2", 3.25, 5.0)),
    case("HardSwish", inside("N 4", -5.0, 2.75)),
    case("Tanh", "N 3"),
    case("Softplus", "N 3"),
    case("Softsign", off_zero("N 3")),
    case("Mish", "N 3"),
    case("Softmax", "N 5"),
    case("Softmax", "N 4 3", axis=1),
    case("Softmax", "2 3 2", axis=-3),
    case("LogSoftmax", "N 5"),
    case("LogSoftmax", "N 4 3", axis=1),
    case("LogSoftmax", "2 3 2", axis=-2),
]
