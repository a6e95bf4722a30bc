"""Metrics: counted inside the graph, as a sum and a count that add up exactly over batches of any size."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Literal

import onnx_ir as ir

from cnnc.bundle import TargetSpec
from cnnc.checks import integer
from cnnc.errors import GraphFileError, ShapeError
from cnnc.ir import Builder, TensorType


class Metric(ABC):
    """A measure of the output beside the loss; its value over any set of batches is Σ sum / Σ count."""

    better: ClassVar[Literal["higher", "lower"]]

    @property
    @abstractmethod
    def name(self) -> str:
        """What reports call it."""

    @abstractmethod
    def check(self, output: TensorType, target: TargetSpec) -> None:
        """Raise GraphFileError where it does not apply to this output and the loss's target."""

    @abstractmethod
    def emit(self, builder: Builder, output: ir.Value, target: ir.Value) -> tuple[ir.Value, ir.Value]:
        """Emit the sum and the count, both int64 scalars."""


@dataclass(frozen=True)
class Accuracy(Metric):
    """The share of right answers.

    With class labels, the class is the largest logit, the first of equal ones. With binary targets each
    element counts, and the answer is yes where the logit is above 0 (a probability above 0.5).
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

    def emit(self, builder: Builder, output: ir.Value, target: ir.Value) -> tuple[ir.Value, ir.Value]:
        """Right answers, and answers."""
        if target.dtype == ir.DataType.INT64:
            right = builder.op("Equal", builder.op("ArgMax", output, axis=1, keepdims=0), target)
        else:
            yes, wanted = builder.op("Greater", output, 0.0), builder.op("Greater", target, 0.5)
            right = builder.op("Not", builder.op("Xor", yes, wanted))  # tract has no Equal of truth values
        return _count(builder, right), builder.op("Size", target)


@dataclass(frozen=True)
class TopKAccuracy(Metric):
    """The share of examples whose class is among the `k` largest logits; of equal ones the first count."""

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
                hint=f"Use a k below {classes}, or leave it out.",
            )

    def emit(self, builder: Builder, output: ir.Value, target: ir.Value) -> tuple[ir.Value, ir.Value]:
        """Examples found, and examples."""
        _, best = builder.op("TopK", output, [self.k], outputs=2, axis=1, sorted=0)
        found = builder.op("Equal", best, builder.op("Unsqueeze", target, [1]))
        return _count(builder, found), builder.op("Size", target)


def _count(builder: Builder, true: ir.Value) -> ir.Value:
    """The number of true elements."""
    number: ir.Value = builder.op(
        "ReduceSum", builder.op("Cast", true, to=int(ir.DataType.INT64)), keepdims=0
    )
    return number
