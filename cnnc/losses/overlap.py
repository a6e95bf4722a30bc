"""Losses of segmentation that measure the overlap of regions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from cnnc.bundle import TargetSpec
from cnnc.checks import real
from cnnc.errors import ShapeError
from cnnc.ir import Builder, TensorType, dims_of, type_of
from cnnc.losses.cross_entropy import check_pixels
from cnnc.losses.loss import Loss


@dataclass(frozen=True)
class Dice(Loss):
    """1 - (2·Σ p·g + ε) / (Σ p + Σ g + ε) for each class of each example; Milletari et al., 2016.

    For logits [N, classes, H, W], p their softmax, and integer labels [N, H, W], g their one-hot vectors.
    Sums are over the pixels, the mean over classes and examples, and ε is `smooth`: as MONAI's DiceLoss.
    """

    activation = "softmax"
    smooth: float = 1e-5

    def __post_init__(self) -> None:
        real("Dice", "smooth", self.smooth, positive=True)

    def target(self, output: TensorType) -> TargetSpec:
        """Integer labels [N, H, W]."""
        check_pixels(self, output)
        return TargetSpec("label", "class", "int64", (output.dims[0], *output.dims[2:]))

    def elements(
        self, builder: Builder, output: ir.Value, target: ir.Value
    ) -> tuple[ir.Value, ir.Value | None]:
        """One-hot vectors, and the ratio of sums over pixels."""
        dims, dtype = dims_of(output), type_of(output).dtype
        off_on = builder.constant(np.array([0.0, 1.0]), dtype)
        wanted = builder.op("OneHot", target, int(dims[1]), off_on, axis=1, dims=dims)
        return _dice(builder, self.activate(builder, output), wanted, self.smooth)


@dataclass(frozen=True)
class BinaryDice(Loss):
    """`Dice` of each channel by itself, for logits [N, C, H, W], p = σ(x), and targets g in [0, 1]."""

    activation = "sigmoid"
    smooth: float = 1e-5

    def __post_init__(self) -> None:
        real("BinaryDice", "smooth", self.smooth, positive=True)

    def target(self, output: TensorType) -> TargetSpec:
        """Floats in [0, 1] of the output's shape."""
        if output.rank < 3:
            raise ShapeError(
                f"BinaryDice takes logits [N, C, H, W]; the network's output is {output}.",
                hint="For one answer an image use losses.BinaryCrossEntropy().",
            )
        return TargetSpec("target", "binary", output.dtype.numpy().name, output.dims)

    def elements(
        self, builder: Builder, output: ir.Value, target: ir.Value
    ) -> tuple[ir.Value, ir.Value | None]:
        """The ratio of sums over pixels."""
        return _dice(builder, self.activate(builder, output), target, self.smooth)


def _dice(builder: Builder, p: ir.Value, g: ir.Value, smooth: float) -> tuple[ir.Value, None]:
    pixels = list(range(2, len(dims_of(p))))
    overlap, ours, theirs = (
        builder.op("ReduceSum", values, pixels, keepdims=0) for values in (builder.op("Mul", p, g), p, g)
    )
    above = builder.op("Add", builder.op("Mul", overlap, 2.0), smooth)
    below = builder.op("Add", builder.op("Add", ours, theirs), smooth)
    missing = builder.op("Sub", 1.0, builder.op("Div", above, below))
    return builder.op("ReduceMean", missing, [1], keepdims=0), None
