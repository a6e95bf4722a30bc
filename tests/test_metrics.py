"""Metrics: exact counts, ties among logits, and what they refuse."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from exported import exported
from traced import Array, emitted

from cnnc import losses, metrics
from cnnc.bundle import MetricSpec, TargetSpec
from cnnc.errors import GraphFileError, ShapeError
from cnnc.ir import TensorType
from cnnc.losses import Loss
from cnnc.metrics import Metric
from cnnc.runtime.evaluation import Accumulator
from cnnc.runtime.finalize import value

TIED = np.array([[1, 3, 3, 0], [2, 2, 2, 2], [0, 0, 0, 1]], np.float32)
LOGITS = np.random.default_rng(0).standard_normal((50, 9)).astype(np.float32)
LABELS = np.random.default_rng(1).integers(0, 9, 50)
RANKS = (LOGITS[np.arange(50), LABELS][:, None] < LOGITS).sum(1)
BINARY = (
    np.array([[2.0], [-1.0], [0.0], [0.1]], np.float32),
    np.array([[1.0], [0.0], [1.0], [0.0]], np.float32),
)


COUNTS: list[tuple[Metric, Array, Array, tuple[Any, int]]] = [
    (metrics.Accuracy(), LOGITS, LABELS, ((RANKS == 0).sum(), 50)),
    (metrics.Accuracy(), TIED, np.array([1, 0, 3]), (3, 3)),
    (metrics.Accuracy(), TIED, np.array([2, 1, 3]), (1, 3)),
    (metrics.Accuracy(), *BINARY, (2, 4)),
    (metrics.TopKAccuracy(), LOGITS, LABELS, ((RANKS < 5).sum(), 50)),
    (metrics.TopKAccuracy(1), TIED, np.array([1, 0, 3]), (3, 3)),
    (metrics.TopKAccuracy(1), TIED, np.array([2, 1, 3]), (1, 3)),
    (metrics.TopKAccuracy(2), TIED, np.array([2, 1, 0]), (3, 3)),
    (metrics.TopKAccuracy(2), TIED, np.array([0, 2, 1]), (0, 3)),
    (metrics.TopKAccuracy(4), TIED, np.array([0, 3, 1]), (3, 3)),
]


@pytest.mark.parametrize(("metric", "output", "target", "expected"), COUNTS)
def test_counts(metric: Metric, output: Array, target: Array, expected: tuple[int, int]) -> None:
    right, count = _emitted(metric, output, target)
    assert (right.dtype, right.shape, count.dtype, count.shape) == (np.int64, (), np.int64, ())
    assert (int(right), int(count)) == expected


def _emitted(metric: Metric, output: Array, target: Array, ignored: int | None = None) -> list[Array]:
    kind: Any = "class"
    if target.dtype.kind == "f":
        kind = {False: "distribution", True: "binary"}[bool(np.isin(target, (0, 1)).all())]
        kind = "value" if isinstance(metric, metrics.PSNR) else kind
    spec = TargetSpec("target", kind, target.dtype.name, target.shape, ignored)
    return emitted(
        lambda builder, output, target: metric.emit(builder, output, target, spec),
        {"output": output, "target": target},
    )


SOFT = np.random.default_rng(2).dirichlet(np.ones(9), 50).astype(np.float32)
PIXELS = np.random.default_rng(3).standard_normal((2, 3, 4, 5)).astype(np.float32)
PIXEL_LABELS = np.random.default_rng(4).integers(0, 3, (2, 4, 5))
HOLES = np.where(np.random.default_rng(5).uniform(size=(2, 4, 5)) < 0.3, 255, PIXEL_LABELS)


@pytest.mark.parametrize(
    ("metric", "output", "target", "ignored"),
    [
        (metrics.Accuracy(), PIXELS, PIXEL_LABELS, None),
        (metrics.Accuracy(), PIXELS, HOLES, 255),
        (metrics.TopKAccuracy(2), PIXELS, HOLES, 255),
        (metrics.Accuracy(), LOGITS, SOFT, None),
        (metrics.Accuracy(), LOGITS, np.full(50, -1), -1),
    ],
)
def test_pixels_distributions_and_ignored_labels(
    metric: Metric, output: Array, target: Array, ignored: int | None
) -> None:
    labels = target.argmax(1) if target.dtype.kind == "f" else target
    k = metric.k if isinstance(metric, metrics.TopKAccuracy) else 1
    kept = labels != ignored if ignored is not None else np.full(labels.shape, True)
    own = np.take_along_axis(output, np.where(kept, labels, 0)[:, None], axis=1)
    right, count = _emitted(metric, output, target, ignored)
    assert int(right) == ((own < output).sum(1) < k)[kept].sum()
    assert int(count) == kept.sum()


def _matrix(labels: Array, answers: Array, classes: int) -> Array:
    matrix = np.zeros((classes, classes), np.int64)
    np.add.at(matrix, (labels, answers), 1)
    return matrix


@pytest.mark.parametrize(
    ("output", "target", "ignored", "expected"),
    [
        (LOGITS, LABELS, None, _matrix(LABELS, LOGITS.argmax(1), 9)),
        (LOGITS, SOFT, None, _matrix(SOFT.argmax(1), LOGITS.argmax(1), 9)),
        (PIXELS, HOLES, 255, _matrix(HOLES[HOLES < 255], PIXELS.argmax(1)[HOLES < 255], 3)),
        (*BINARY, None, np.array([[1, 1], [1, 1]])),
    ],
)
def test_confusion_matrix(output: Array, target: Array, ignored: int | None, expected: Array) -> None:
    matrix, count = _emitted(metrics.ConfusionMatrix(), output, target, ignored)
    assert (matrix.dtype, count.dtype) == (np.int64, np.int64)
    np.testing.assert_array_equal(matrix, expected)
    assert count == expected.sum()


MATRIX = [[5, 1, 0, 0], [2, 3, 0, 0], [0, 0, 0, 0], [1, 0, 0, 0]]  # class 2 never occurs, 3 is never found


OF_MATRIX: list[tuple[Metric, float]] = [
    (metrics.Precision(), (5 / 8 + 3 / 4 + 0) / 3),
    (metrics.Recall(), (5 / 6 + 3 / 5 + 0) / 3),
    (metrics.MeanIoU(), (5 / 9 + 3 / 6 + 0) / 3),
    (metrics.Precision(1), 3 / 4),
    (metrics.Recall(0), 5 / 6),
    (metrics.Recall(2), 0.0),
    (metrics.MeanIoU(3), 0.0),
]


def test_every_metric_has_a_row() -> None:
    with_tests_of_their_own = {metrics.ConfusionMatrix, metrics.PSNR}
    tried = {type(metric) for metric, *_ in (*COUNTS, *OF_MATRIX)}
    assert exported(metrics, Metric) == tried | with_tests_of_their_own


@pytest.mark.parametrize(("metric", "expected"), OF_MATRIX)
def test_values_of_the_matrix(metric: Metric, expected: float) -> None:
    spec = metric.spec(TargetSpec("label", "class", "int64", ("N",)))
    assert spec.counted == "confusion_matrix"
    total = Accumulator()
    total.add({"confusion_matrix": ([[0, 1, 0, 0], [2, 1, 0, 0], *[[0] * 4] * 2], 4)})
    total.add({"confusion_matrix": ([[5, 0, 0, 0], [0, 2, 0, 0], [0] * 4, [1, 0, 0, 0]], 8)})
    assert total.sums["confusion_matrix"] == (MATRIX, 12)
    assert total.values([spec]) == {metric.name: pytest.approx(expected)}


def test_precision_of_yes() -> None:
    spec = metrics.Precision().spec(TargetSpec("target", "binary", "float32", ("N", 1)))
    assert (spec.name, spec.label) == ("precision", 1)


def test_psnr() -> None:
    ours, wanted = np.random.default_rng(0).uniform(0, 255, (2, 3, 1, 4, 4)).astype(np.float32)
    spec = metrics.PSNR(255.0).spec(TargetSpec("target", "value", "float32", ("N", 1, 4, 4)))
    total = Accumulator()
    for part in (slice(0, 2), slice(2, 3)):
        squares, count = _emitted(metrics.PSNR(255.0), ours[part], wanted[part])
        total.add({"psnr": (squares.item(), count.item())})
    expected = 10 * np.log10(255.0**2 / ((ours - wanted) ** 2).mean())
    assert total.values([spec])["psnr"] == pytest.approx(expected, rel=1e-6)
    assert value(spec, {spec.counted: (0.0, 3)}) == 100.0


def test_nothing_counted_is_nan() -> None:
    assert math.isnan(value(MetricSpec("loss", "lower"), {"loss": (0.0, 0)}))


def test_names() -> None:
    assert [m(3).name for m in (metrics.Precision, metrics.Recall, metrics.MeanIoU)] == [
        "precision_3",
        "recall_3",
        "iou_3",
    ]
    assert [m().name for m in (metrics.Precision, metrics.Recall, metrics.MeanIoU)] == [
        "precision",
        "recall",
        "mean_iou",
    ]

    assert [metrics.Accuracy().name, metrics.TopKAccuracy(3).name] == ["accuracy", "top3_accuracy"]
    assert metrics.Accuracy().better == metrics.TopKAccuracy().better == "higher"


@pytest.mark.parametrize(
    ("metric", "loss", "kind", "text"),
    [
        (metrics.Accuracy(), losses.MeanSquaredError(), GraphFileError, "Accuracy counts right answers"),
        (
            metrics.TopKAccuracy(),
            losses.BinaryCrossEntropy(),
            GraphFileError,
            "TopKAccuracy needs a loss with",
        ),
        (
            metrics.TopKAccuracy(5),
            losses.SoftmaxCrossEntropy(),
            ShapeError,
            "TopKAccuracy: the network tells 3 classes apart, fewer than k = 5",
        ),
        (metrics.MeanIoU(), losses.MeanSquaredError(), GraphFileError, "MeanIoU tells classes apart"),
        (metrics.Recall(3), losses.SoftmaxCrossEntropy(), ShapeError, "there is no class 3 among 3"),
        (metrics.Recall(0), losses.BinaryCrossEntropy(), ShapeError, "there is only that of yes"),
        (metrics.PSNR(), losses.BinaryCrossEntropy(), GraphFileError, "PSNR needs a loss that compares"),
    ],
)
def test_refused(metric: Metric, loss: Loss, kind: type[Exception], text: str) -> None:
    output = TensorType(ir.DataType.FLOAT, ("N", 3))
    with pytest.raises(kind, match=text):
        metric.check(output, loss.target(output))


def test_fields_are_checked() -> None:
    with pytest.raises(GraphFileError, match=r"^test_metrics\.py:\d+: Recall: label must be at least 0"):
        metrics.Recall(-1)
    with pytest.raises(GraphFileError, match=r"^test_metrics\.py:\d+: PSNR: peak must be a number above 0"):
        metrics.PSNR(0.0)


def test_k_is_checked() -> None:
    with pytest.raises(GraphFileError, match=r"^test_metrics\.py:\d+: TopKAccuracy: k must be at least 1"):
        metrics.TopKAccuracy(0)
