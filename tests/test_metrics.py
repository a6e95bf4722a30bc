"""Metrics: exact counts, ties among logits, and what they refuse."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from traced import Array, emitted

from cnnc import losses, metrics
from cnnc.errors import GraphFileError, ShapeError
from cnnc.ir import TensorType
from cnnc.losses import Loss
from cnnc.metrics import Metric

TIED = np.array([[1, 3, 3, 0], [2, 2, 2, 2], [0, 0, 0, 1]], np.float32)
LOGITS = np.random.default_rng(0).standard_normal((50, 9)).astype(np.float32)
LABELS = np.random.default_rng(1).integers(0, 9, 50)
RANKS = (LOGITS[np.arange(50), LABELS][:, None] < LOGITS).sum(1)
BINARY = (
    np.array([[2.0], [-1.0], [0.0], [0.1]], np.float32),
    np.array([[1.0], [0.0], [1.0], [0.0]], np.float32),
)


@pytest.mark.parametrize(
    ("metric", "output", "target", "expected"),
    [
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
    ],
)
def test_counts(metric: Metric, output: Array, target: Array, expected: tuple[int, int]) -> None:
    right, count = emitted(metric.emit, {"output": output, "target": target})
    assert (right.dtype, right.shape, count.dtype, count.shape) == (np.int64, (), np.int64, ())
    assert (int(right), int(count)) == expected


def test_names() -> None:
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
    ],
)
def test_refused(metric: Metric, loss: Loss, kind: type[Exception], text: str) -> None:
    output = TensorType(ir.DataType.FLOAT, ("N", 3))
    with pytest.raises(kind, match=text):
        metric.check(output, loss.target(output))


def test_k_is_checked() -> None:
    with pytest.raises(GraphFileError, match=r"^test_metrics\.py:\d+: TopKAccuracy: k must be at least 1"):
        metrics.TopKAccuracy(0)
