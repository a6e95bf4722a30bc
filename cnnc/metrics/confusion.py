"""Metrics of the confusion matrix, which is counted once for all of them."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Literal

import numpy as np
import onnx_ir as ir

from cnnc.bundle import MetricSpec, TargetSpec
from cnnc.checks import integer
from cnnc.errors import GraphFileError, ShapeError
from cnnc.ir import Builder, TensorType, dims_of
from cnnc.metrics.metric import Metric, kept_labels, number, predictions


class _Confusion(Metric):
    """Made of the confusion matrix [C, C]: rows are labels, columns predictions.

    For binary targets each element counts, and C is 2: no and yes.
    """

    better = "higher"

    @property
    @abstractmethod
    def kind(self) -> Literal["confusion_matrix", "iou", "precision", "recall"]:
        """What is made of the matrix."""

    def spec(self, target: TargetSpec) -> MetricSpec:
        """Counted under the name ``confusion_matrix``."""
        return MetricSpec(self.name, self.better, self.kind, "confusion_matrix")

    def check(self, output: TensorType, target: TargetSpec) -> None:
        """The loss has class labels, distributions or binary targets, and the classes are known."""
        owner = type(self).__name__
        if target.kind == "value":
            raise GraphFileError(
                f"{owner} tells classes apart, and this loss compares values.", hint="Leave it out."
            )
        if target.kind != "binary" and not isinstance(output.dims[1], int):
            raise ShapeError(f"{owner}: the number of classes of {output} is not known.")

    def emit(
        self, builder: Builder, output: ir.Value, target: ir.Value, spec: TargetSpec
    ) -> tuple[ir.Value, ir.Value]:
        """The matrix as int64, and the number of answers in it.

        A batch is counted in float32, which is exact up to 2²⁴ answers a cell.
        """
        classes = 2 if spec.kind == "binary" else int(dims_of(output)[1])
        kept, labels = kept_labels(builder, target, spec)
        row = builder.op("Mul", labels, classes)
        cells = builder.op("Reshape", builder.op("Add", row, predictions(builder, output, spec)), [-1])
        if kept is None:
            ones = builder.op(
                "Expand", np.ones((), np.float32), builder.op("Shape", cells), dims=dims_of(cells)
            )
            answers = builder.op("Size", cells)
        else:
            ones = builder.op("Reshape", builder.op("Cast", kept, to=int(ir.DataType.FLOAT)), [-1])
            answers = number(builder, kept)
        counts = builder.op(
            "ScatterElements", np.zeros(classes**2, np.float32), cells, ones, axis=0, reduction="add"
        )
        matrix = builder.op("Reshape", counts, [classes, classes])
        return builder.op("Cast", matrix, to=int(ir.DataType.INT64)), answers


@dataclass(frozen=True)
class ConfusionMatrix(_Confusion):
    """How often each class (row) is taken for each class (column).

    It is no number, so reports leave it out: a run writes that of its last evaluation to
    ``confusion_matrix.csv``.
    """

    @property
    def name(self) -> str:
        """``confusion_matrix``."""
        return "confusion_matrix"

    @property
    def kind(self) -> Literal["confusion_matrix"]:
        """The matrix itself."""
        return "confusion_matrix"


@dataclass(frozen=True)
class _OfClass(_Confusion):
    """Of one class, or the mean over the classes that occur among labels or predictions.

    With binary targets it is always that of yes.
    """

    label: int | None = None

    def __post_init__(self) -> None:
        if self.label is not None:
            integer(type(self).__name__, "label", self.label, least=0)

    @property
    def name(self) -> str:
        """``mean_iou``, or ``iou_3`` for class 3; the others are called alike without ``mean_``."""
        mean = "mean_iou" if self.kind == "iou" else self.kind
        return mean if self.label is None else f"{self.kind}_{self.label}"

    def spec(self, target: TargetSpec) -> MetricSpec:
        """With the class it is of."""
        label = 1 if target.kind == "binary" else self.label
        return MetricSpec(self.name, self.better, self.kind, "confusion_matrix", label)

    def check(self, output: TensorType, target: TargetSpec) -> None:
        """Beside what all need, the class is one of the network's."""
        super().check(output, target)
        if self.label is None:
            return
        classes = 2 if target.kind == "binary" else int(output.dims[1])
        if self.label >= classes or (target.kind == "binary" and self.label != 1):
            raise ShapeError(
                f"{type(self).__name__}: there is no class {self.label} among {classes}.",
                hint="Classes are numbered from 0; with binary targets there is only that of yes, 1.",
            )


@dataclass(frozen=True)
class Precision(_OfClass):
    """The share of a class's predictions that are right; 0 where it is never predicted."""

    @property
    def kind(self) -> Literal["precision"]:
        """The diagonal over the sums of columns."""
        return "precision"


@dataclass(frozen=True)
class Recall(_OfClass):
    """The share of a class's examples that are found; 0 where there are none."""

    @property
    def kind(self) -> Literal["recall"]:
        """The diagonal over the sums of rows."""
        return "recall"


@dataclass(frozen=True)
class MeanIoU(_OfClass):
    """Intersection over union of labels and predictions; Everingham et al., 2010 (PASCAL VOC).

    With `label` that of one class. Pixels that the loss ignores don't count.
    """

    @property
    def kind(self) -> Literal["iou"]:
        """The diagonal over the sums of row and column without it."""
        return "iou"
