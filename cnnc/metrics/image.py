"""Metrics of images that a network makes."""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from cnnc.bundle import MetricSpec, TargetSpec
from cnnc.checks import real
from cnnc.errors import GraphFileError
from cnnc.ir import Builder, TensorType
from cnnc.metrics.metric import Metric


@dataclass(frozen=True)
class PSNR(Metric):
    """Peak signal-to-noise ratio in decibels: 10 · log₁₀(peak² / mean squared error), 100 at most.

    The error is the mean over all elements of all examples; `peak` is the largest value a target can have.
    Raises GraphFileError for a field out of range.
    """

    better = "higher"
    peak: float = 1.0

    def __post_init__(self) -> None:
        real("PSNR", "peak", self.peak, positive=True)

    @property
    def name(self) -> str:
        """``psnr``."""
        return "psnr"

    def check(self, output: TensorType, target: TargetSpec) -> None:
        """The loss compares values."""
        if target.kind != "value":
            raise GraphFileError("PSNR needs a loss that compares values.", hint="Leave it out.")

    def spec(self, target: TargetSpec) -> MetricSpec:
        """From the mean squared error, in units of the peak."""
        return MetricSpec(self.name, self.better, "psnr")

    def emit(
        self, builder: Builder, output: ir.Value, target: ir.Value, spec: TargetSpec
    ) -> tuple[ir.Value, ir.Value]:
        """The squared errors, and the number of elements."""
        error = builder.op("Mul", builder.op("Sub", output, target), 1.0 / self.peak)
        squares = builder.op("ReduceSum", builder.op("Mul", error, error), keepdims=0)
        return squares, builder.op("Size", target)
