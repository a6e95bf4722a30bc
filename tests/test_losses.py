"""Losses: their values against formulas in float64, also where logits are extreme, and what they refuse."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from traced import Array, emitted, run, run_reference

from cnnc import losses
from cnnc.bundle import TargetSpec
from cnnc.errors import GraphFileError, ShapeError
from cnnc.ir import Dim, TensorType
from cnnc.losses import Loss

RNG = np.random.default_rng(0)
LOGITS = RNG.standard_normal((6, 4)) * 3
LABELS = np.array([0, 3, 1, 1, 2, 0])
BINARY = RNG.integers(0, 2, (6, 4)).astype(np.float64)
IMAGES, WANTED = RNG.standard_normal((2, 6, 2, 3, 3))


def _cross_entropy(x: Array, labels: Array, smoothing: float) -> float:
    classes = x.shape[1]
    target = (1 - smoothing) * np.eye(classes)[labels] + smoothing / classes
    return float(-(target * (x - np.log(np.exp(x).sum(1, keepdims=True)))).sum())


def _binary(x: Array, t: Array) -> float:
    return float((t * np.logaddexp(0, -x) + (1 - t) * np.logaddexp(0, x)).mean(axis=1).sum())


CASES: list[tuple[Loss, Array, Array, float]] = [
    (losses.SoftmaxCrossEntropy(), LOGITS, LABELS, _cross_entropy(LOGITS, LABELS, 0.0)),
    (losses.SoftmaxCrossEntropy(0.1), LOGITS, LABELS, _cross_entropy(LOGITS, LABELS, 0.1)),
    (losses.SoftmaxCrossEntropy(), np.array([[150.0, -150.0]]), np.array([1]), 300.0),
    (losses.BinaryCrossEntropy(), LOGITS, BINARY, _binary(LOGITS, BINARY)),
    (losses.BinaryCrossEntropy(), np.array([[500.0], [-500.0]]), np.array([[0.0], [1.0]]), 1000.0),
    (losses.BinaryCrossEntropy(), LOGITS, np.full((6, 4), 0.3), _binary(LOGITS, np.full((6, 4), 0.3))),
    (losses.MeanSquaredError(), IMAGES, WANTED, float(((IMAGES - WANTED) ** 2).mean((1, 2, 3)).sum())),
]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("loss", "output", "target", "expected"), CASES, ids=lambda v: str(v)[:40])
def test_value(loss: Loss, output: Array, target: Array, expected: float, dtype: type) -> None:
    """Sum over examples and their number, in the element type of the graph."""
    target = target if target.dtype == np.int64 else target.astype(dtype)
    runtime = run
    if dtype is np.float64 and isinstance(loss, losses.SoftmaxCrossEntropy):
        runtime = run_reference  # ONNX Runtime has no OneHot of float64
    total, count = emitted(loss.emit, {"output": output.astype(dtype), "target": target}, runtime)
    tolerance = 1e-6 if dtype is np.float32 else 1e-12
    assert (total.dtype, total.shape, count.dtype, count.shape) == (dtype, (), np.int64, ())
    assert total == pytest.approx(expected, rel=tolerance)
    assert count == len(output)


FLOAT = ir.DataType.FLOAT
TARGETS: list[tuple[Loss, tuple[Dim, ...], TargetSpec]] = [
    (losses.SoftmaxCrossEntropy(), ("N", 10), TargetSpec("label", "class", "int64", ("N",))),
    (losses.BinaryCrossEntropy(), ("N", 1), TargetSpec("target", "binary", "float32", ("N", 1))),
    (losses.MeanSquaredError(), ("N", 3, 8, 8), TargetSpec("target", "value", "float32", ("N", 3, 8, 8))),
]


@pytest.mark.parametrize(("loss", "dims", "expected"), TARGETS)
def test_target(loss: Loss, dims: tuple[Dim, ...], expected: TargetSpec) -> None:
    assert loss.target(TensorType(FLOAT, dims)) == expected


@pytest.mark.parametrize(
    ("loss", "dims", "text"),
    [
        (
            losses.SoftmaxCrossEntropy(),
            ("N", 8, 4, 4),
            "SoftmaxCrossEntropy takes logits [N, classes] of two or more classes; the network's output is "
            "float[N, 8, 4, 4]. End it with nn.Flatten() and nn.Dense(classes).",
        ),
        (
            losses.SoftmaxCrossEntropy(),
            ("N", 1),
            "SoftmaxCrossEntropy takes logits [N, classes] of two or more classes; the network's output is "
            "float[N, 1]. End it with nn.Dense(classes), or use losses.BinaryCrossEntropy().",
        ),
    ],
)
def test_refused_outputs(loss: Loss, dims: tuple[Dim, ...], text: str) -> None:
    with pytest.raises(ShapeError) as caught:
        loss.target(TensorType(FLOAT, dims))
    assert str(caught.value) == text


def test_label_smoothing_is_checked() -> None:
    with pytest.raises(GraphFileError, match=r"^test_losses\.py:\d+: SoftmaxCrossEntropy: label_smoothing"):
        losses.SoftmaxCrossEntropy(label_smoothing=1.0)


@pytest.mark.parametrize(
    ("loss", "formula"),
    [
        (losses.SoftmaxCrossEntropy(), lambda x: np.exp(x) / np.exp(x).sum(1, keepdims=True)),
        (losses.BinaryCrossEntropy(), lambda x: 1 / (1 + np.exp(-x))),
        (losses.MeanSquaredError(), lambda x: x),
    ],
)
def test_activation_of_predictions(loss: Loss, formula: object) -> None:
    (y,) = emitted(lambda builder, x: (loss.activate(builder, x),), {"x": LOGITS})
    np.testing.assert_allclose(y, formula(LOGITS), rtol=1e-6)  # type: ignore[operator]


def test_description() -> None:
    assert losses.SoftmaxCrossEntropy(0.1).describe() == {
        "name": "SoftmaxCrossEntropy",
        "label_smoothing": 0.1,
    }
