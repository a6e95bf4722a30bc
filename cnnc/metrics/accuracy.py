"""Shares of right answers."""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from cnnc.bundle import TargetSpec
from cnnc.checks import integer
from cnnc.errors import GraphFileError, ShapeError
from cnnc.ir import Builder, TensorType
from cnnc.metrics.metric import Metric, kept_labels, number, predictions


@dataclass(frozen=True)
class Accuracy(Metric):
    """The share of right answers.

    With class labels, the class is the largest logit, the first of equal ones; labels that the loss ignores
    don't count. With binary targets each element counts, and the answer is yes where the logit is above 0
    (a probability above 0.5).
    """

    better = "higher"

    @property
    def name(self) -> str:
        """``accuracy``."""
        return "accuracy"

    def check(self, output: TensorType, target: TargetSpec) -> None:
        """The loss has class labels or binary targets."""
        if target.kind == "value":
            raise GraphFileError(
                "Accuracy counts right answers, and this loss compares values.",
                hint="Leave the metric out: the mean loss is always reported.",
            )

    def emit(
        self, builder: Builder, output: ir.Value, target: ir.Value, spec: TargetSpec
    ) -> tuple[ir.Value, ir.Value]:
        """Right answers, and answers."""
        if spec.kind == "binary":
            yes, wanted = builder.op("Greater", output, 0.0), builder.op("Greater", target, 0.5)
            right = builder.op("Not", builder.op("Xor", yes, wanted))  # tract has no Equal of truth values
            return number(builder, right), builder.op("Size", target)
        kept, labels = kept_labels(builder, target, spec)
        return _counted(builder, builder.op("Equal", predictions(builder, output, spec), labels), kept)


@dataclass(frozen=True)
class TopKAccuracy(Metric):
    """The share of examples whose class is among the `k` largest logits; of equal ones the first count.

    Raises GraphFileError for a `k` below 1, and in `check` for one above the classes.
    """

    better = "higher"
    k: int = 5

    def __post_init__(self) -> None:
        integer("TopKAccuracy", "k", self.k)

    @property
    def name(self) -> str:
        """``top5_accuracy`` for k = 5."""
        return f"top{self.k}_accuracy"

    def check(self, output: TensorType, target: TargetSpec) -> None:
        """The loss has class labels, and there are at least `k` classes."""
        if target.kind != "class":
            raise GraphFileError("TopKAccuracy needs a loss with class labels.", hint="Leave it out.")
        classes = output.dims[1]
        if isinstance(classes, int) and classes < self.k:
            raise ShapeError(
                f"TopKAccuracy: the network tells {classes} classes apart, fewer than k = {self.k}.",
                hint=f"Use a k of at most {classes}, or leave it out.",
            )

    def emit(
        self, builder: Builder, output: ir.Value, target: ir.Value, spec: TargetSpec
    ) -> tuple[ir.Value, ir.Value]:
        """Examples found, and examples."""
        _, best = builder.op("TopK", output, [self.k], outputs=2, axis=1, sorted=0)
        kept, labels = kept_labels(builder, target, spec)
        found = builder.op("Equal", best, builder.op("Unsqueeze", labels, [1]))
        if kept is None:
            return number(builder, found), builder.op("Size", target)
        found = builder.op("And", found, builder.op("Unsqueeze", kept, [1]))
        return number(builder, found), number(builder, kept)


def _counted(builder: Builder, right: ir.Value, kept: ir.Value | None) -> tuple[ir.Value, ir.Value]:
    """The right answers among those that count, and how many count."""
    if kept is None:
        return number(builder, right), builder.op("Size", right)
    return number(builder, builder.op("And", right, kept)), number(builder, kept)
