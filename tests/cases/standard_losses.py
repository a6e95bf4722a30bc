"""The losses that ONNX has as operators."""

from __future__ import annotations

from functools import partial

import onnx_ir as ir

from cases.row import case, fixed, graph, labels
from cnnc.ir import Ops


def ignoring(op: Ops, x: ir.Value, target: ir.Value, loss: str, label: int) -> ir.Value:
    target = op.Where(op.Equal(target, 1), label, target)
    return getattr(op, loss)(x, target, ignore_index=label)


STANDARD_LOSSES = [
    *(
        case(loss, *operands, reduction=reduction, **attributes)
        for loss in ("NegativeLogLikelihoodLoss", "SoftmaxCrossEntropyLoss")
        for reduction in ("none", "sum", "mean")
        for operands, attributes in [
            (("N 5", labels("N", 5)), {}),
            (("N 3 H W", labels("N H W", 3), fixed("3", 0.5, 2.0)), {}),
            (("N 4 7", labels("N 7", 4), fixed("4", 0.5, 2.0)), {"ignore_index": 2}),
            (("N 3 5", labels("N 5", 3)), {"ignore_index": 0}),
        ]
    ),
    # Ignored elements have a label that is no class, which an index from the end would make one.
    *(
        graph(loss, partial(ignoring, loss=loss, label=label), f"N 3 {size}", labels(f"N {size}", 3))
        for loss in ("NegativeLogLikelihoodLoss", "SoftmaxCrossEntropyLoss")
        for label, size in ((-2, 7), (255, 8))
    ),
    case("SoftmaxCrossEntropyLoss", "N 3 4", labels("N 4", 3), outputs=2),
    graph(
        "SoftmaxCrossEntropyLoss",
        lambda op, x, t: op.Mul(*op.SoftmaxCrossEntropyLoss(x, t, outputs=2)),
        *("N 3 4", labels("N 4", 3)),
    ),
    graph(
        "SoftmaxCrossEntropyLoss",
        lambda op, x, t: op.SoftmaxCrossEntropyLoss(x, t, outputs=2)[1],
        *("N 3 5", labels("N 5", 3)),
    ),
]
