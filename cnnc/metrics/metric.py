"""What every metric is made of."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar, Literal

import onnx_ir as ir

from cnnc.bundle import MetricSpec, TargetSpec
from cnnc.ir import Builder, TensorType


class Metric(ABC):
    """A measure of the output beside the loss: sums that add up over batches, and what is made of them."""

    better: ClassVar[Literal["higher", "lower"]]

    @property
    @abstractmethod
    def name(self) -> str:
        """What reports call it."""

    @abstractmethod
    def check(self, output: TensorType, target: TargetSpec) -> None:
        """Raise GraphFileError where it does not apply to this output and the loss's target."""

    def spec(self, target: TargetSpec) -> MetricSpec:
        """As the manifest has it. Metrics of one `counted` share what `emit` makes."""
        return MetricSpec(self.name, self.better)

    @abstractmethod
    def emit(
        self, builder: Builder, output: ir.Value, target: ir.Value, spec: TargetSpec
    ) -> tuple[ir.Value, ir.Value]:
        """Emit the sum, of a static shape, and the count, an int64 scalar, of targets that are as `spec`."""


def kept_labels(builder: Builder, target: ir.Value, spec: TargetSpec) -> tuple[ir.Value | None, ir.Value]:
    """Which class labels count (None: all of them), and the labels with 0 in place of the others.

    The label of a distribution is its largest class, that of a binary target whether it is above 0.5.
    """
    if spec.kind == "distribution":
        return None, builder.op("ArgMax", target, axis=1, keepdims=0)
    if spec.kind == "binary":
        return None, _integer(builder, builder.op("Greater", target, 0.5))
    if spec.ignored is None:
        return None, target
    kept = builder.op("Not", builder.op("Equal", target, spec.ignored))
    return kept, builder.op("Where", kept, target, 0)


def predictions(builder: Builder, output: ir.Value, spec: TargetSpec) -> ir.Value:
    """The class of the largest logit, the first of equal ones; for binary targets whether it is above 0."""
    if spec.kind == "binary":
        return _integer(builder, builder.op("Greater", output, 0.0))
    largest: ir.Value = builder.op("ArgMax", output, axis=1, keepdims=0)
    return largest


def number(builder: Builder, true: ir.Value) -> ir.Value:
    """The number of true elements."""
    count: ir.Value = builder.op("ReduceSum", _integer(builder, true), keepdims=0)
    return count


def _integer(builder: Builder, true: ir.Value) -> ir.Value:
    integer: ir.Value = builder.op("Cast", true, to=int(ir.DataType.INT64))
    return integer
