"""Losses of classes: the output holds logits along axis 1."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import onnx_ir as ir

from cnnc.bundle import TargetSpec
from cnnc.checks import integer, real
from cnnc.errors import ShapeError
from cnnc.ir import Builder, TensorType, type_of
from cnnc.losses.loss import Loss, by_channel, constant_by_channel, numbers


@dataclass(frozen=True)
class SoftmaxCrossEntropy(Loss):
    """-Σ w · q · log softmax(logits), for logits [N, classes] and integer labels [N] in [0, classes).

    q = (1 - s) · one-hot + s / classes, with the label smoothing s in [0, 1); Szegedy et al., 2016.
    `class_weights` w has a number of at least 0 for each class (1 by default); the sum is then divided by
    the weights of the examples' labels, as in PyTorch. Labels of `ignore_index` count for nothing. A batch
    in which nothing counts has the loss 0. Raises GraphFileError for a field out of range.
    """

    activation = "softmax"
    label_smoothing: float = 0.0
    class_weights: Sequence[float] | None = None
    ignore_index: int | None = None

    def __post_init__(self) -> None:
        owner = type(self).__name__
        real(owner, "label_smoothing", self.label_smoothing, below=1.0)
        if self.class_weights is not None:
            object.__setattr__(self, "class_weights", numbers(owner, "class_weights", self.class_weights))
        if self.ignore_index is not None:
            integer(owner, "ignore_index", self.ignore_index, least=-(2**31))

    @property
    def may_count_nothing(self) -> bool:
        """Where all labels are ignored, or of classes with the weight 0."""
        return self.ignore_index is not None or self.class_weights is not None

    def mean(self, builder: Builder, total: ir.Value, count: ir.Value, name: str = "loss") -> ir.Value:
        """Emit the sum over the count; 0 for a count of 0, where smoothing leaves a sum all the same."""
        if self.label_smoothing and 0 in (self.class_weights or ()):
            total = builder.op("Where", builder.op("Greater", count, 0.0), total, 0.0)
        return super().mean(builder, total, count, name)

    def target(self, output: TensorType) -> TargetSpec:
        """Integer labels [N]."""
        if output.rank != 2 or output.dims[1] == 1:
            raise ShapeError(
                f"{type(self).__name__} takes logits [N, classes] of two or more classes; the network's "
                f"output is {output}.",
                hint=(
                    "End it with nn.Dense(classes), or use losses.BinaryCrossEntropy()."
                    if output.rank == 2
                    else "End it with nn.Flatten() and nn.Dense(classes)."
                ),
            )
        return self._labels(output)

    def elements(
        self, builder: Builder, output: ir.Value, target: ir.Value
    ) -> tuple[ir.Value, ir.Value | None]:
        """One gradient op."""
        kept, labels = _kept(builder, target, self.ignore_index)
        weights = self._weights(builder, output)
        losses, _ = builder.op(
            "SoftmaxCrossEntropy", output, labels, *weights, label_smoothing=self.label_smoothing
        )
        counted = builder.op("Gather", *weights, labels, axis=0) if weights else kept
        if kept is not None:
            mask = builder.op("Cast", kept, to=int(type_of(losses).dtype))
            losses = builder.op("Mul", losses, mask)
            counted = builder.op("Mul", counted, mask) if weights else kept
        return losses, counted

    def _labels(self, output: TensorType) -> TargetSpec:
        if self.class_weights is not None:
            by_channel(type(self).__name__, "class_weights", self.class_weights, output)
        dims = (output.dims[0], *output.dims[2:])
        return TargetSpec("label", "class", "int64", dims, self.ignore_index)

    def _weights(self, builder: Builder, output: ir.Value) -> list[ir.Value]:
        """The class weights as a constant [C], where there are any."""
        if self.class_weights is None:
            return []
        return [builder.constant(self.class_weights, type_of(output).dtype)]


@dataclass(frozen=True)
class PixelCrossEntropy(SoftmaxCrossEntropy):
    """`SoftmaxCrossEntropy` of each pixel, for logits [N, classes, H, W] and integer labels [N, H, W].

    The mean is over all pixels of the batch that count; there may be any number of axes after the classes.
    """

    def target(self, output: TensorType) -> TargetSpec:
        """Integer labels [N, H, W]."""
        check_pixels(self, output)
        return self._labels(output)


@dataclass(frozen=True)
class SoftmaxFocal(Loss):
    """-(1 - p)^γ · log p with p the label's softmax probability; Lin et al., 2017, for several classes.

    Logits are [N, classes], or [N, classes, H, W] with labels [N, H, W]; labels of `ignore_index` count for
    nothing. Raises GraphFileError for a field out of range.
    """

    activation = "softmax"
    gamma: float = 2.0
    ignore_index: int | None = None

    def __post_init__(self) -> None:
        real("SoftmaxFocal", "gamma", self.gamma)
        if self.ignore_index is not None:
            integer("SoftmaxFocal", "ignore_index", self.ignore_index, least=-(2**31))

    @property
    def may_count_nothing(self) -> bool:
        """Where all labels are ignored."""
        return self.ignore_index is not None

    def target(self, output: TensorType) -> TargetSpec:
        """Integer labels [N, …]."""
        if output.rank > 2:
            check_pixels(self, output)
            return TargetSpec(
                "label", "class", "int64", (output.dims[0], *output.dims[2:]), self.ignore_index
            )
        return SoftmaxCrossEntropy(ignore_index=self.ignore_index).target(output)

    def elements(
        self, builder: Builder, output: ir.Value, target: ir.Value
    ) -> tuple[ir.Value, ir.Value | None]:
        """The cross-entropy l of each label, times (1 - exp(-l))^γ."""
        kept, labels = _kept(builder, target, self.ignore_index)
        losses, _ = builder.op("SoftmaxCrossEntropy", output, labels, label_smoothing=0.0)
        if self.gamma:
            missing = builder.op("Sub", 1.0, builder.op("Exp", builder.op("Neg", losses)))
            # The power by its logarithm: the small number keeps value and gradient finite where p is 1.
            logarithm = builder.op("Log", builder.op("Add", missing, 1e-30))
            factor = builder.op("Exp", builder.op("Mul", logarithm, float(self.gamma)))
            losses = builder.op("Mul", losses, factor)
        if kept is not None:
            losses = builder.op("Mul", losses, builder.op("Cast", kept, to=int(type_of(losses).dtype)))
        return losses, kept


@dataclass(frozen=True)
class DenseCrossEntropy(Loss):
    """-Σ w · q · log softmax(logits), for logits [N, classes, …] and a distribution of the same shape.

    q = (1 - s) · target + s / classes with the label smoothing s. The sum over classes, the mean over
    examples (and pixels), also where there are `class_weights` w, as in PyTorch. Raises GraphFileError for a
    field out of range.
    """

    activation = "softmax"
    label_smoothing: float = 0.0
    class_weights: Sequence[float] | None = None

    def __post_init__(self) -> None:
        owner = "DenseCrossEntropy"
        real(owner, "label_smoothing", self.label_smoothing, below=1.0)
        if self.class_weights is not None:
            object.__setattr__(self, "class_weights", numbers(owner, "class_weights", self.class_weights))

    def target(self, output: TensorType) -> TargetSpec:
        """Distributions over the classes, of the output's shape."""
        if output.rank < 2 or not isinstance(output.dims[1], int) or output.dims[1] == 1:
            raise ShapeError(
                f"DenseCrossEntropy takes logits [N, classes, …] of two or more classes; the network's "
                f"output is {output}.",
                hint="End it with nn.Dense(classes).",
            )
        if self.class_weights is not None:
            by_channel("DenseCrossEntropy", "class_weights", self.class_weights, output)
        return TargetSpec("target", "distribution", output.dtype.numpy().name, output.dims)

    def elements(
        self, builder: Builder, output: ir.Value, target: ir.Value
    ) -> tuple[ir.Value, ir.Value | None]:
        """As it is written above."""
        smoothing, classes = float(self.label_smoothing), type_of(output).dims[1]
        assert isinstance(classes, int)
        if smoothing:
            target = builder.op("Add", builder.op("Mul", target, 1.0 - smoothing), smoothing / classes)
        if self.class_weights is not None:
            target = builder.op("Mul", target, constant_by_channel(builder, self.class_weights, target))
        picked = builder.op("Mul", builder.op("LogSoftmax", output, axis=1), target)
        return builder.op("Neg", builder.op("ReduceSum", picked, [1], keepdims=0)), None


def check_pixels(loss: Loss, output: TensorType) -> None:
    """Raise ShapeError unless the output holds two or more classes for each pixel."""
    if output.rank < 3 or output.dims[1] == 1:
        raise ShapeError(
            f"{type(loss).__name__} takes logits [N, classes, H, W] of two or more classes; the network's "
            f"output is {output}.",
            hint=(
                "End it with nn.Conv2d(classes, 1), or use losses.BinaryCrossEntropy()."
                if output.rank > 2
                else "For one label an image use losses.SoftmaxCrossEntropy()."
            ),
        )


def _kept(builder: Builder, labels: ir.Value, ignored: int | None) -> tuple[ir.Value | None, ir.Value]:
    """Which labels count (None: all of them), and the labels with 0 in place of the others."""
    if ignored is None:
        return None, labels
    kept = builder.op("Not", builder.op("Equal", labels, ignored))
    return kept, builder.op("Where", kept, labels, 0)
