"""Losses: their values against formulas in float64, also where logits are extreme, and what they refuse."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import numpy as np
import onnx_ir as ir
import pytest
from exported import exported
from traced import Array, emitted, run, run_reference

from cnnc import losses
from cnnc.autodiff import gradients
from cnnc.bundle import TargetSpec
from cnnc.errors import GraphFileError, ShapeError
from cnnc.ir import Builder, Dim, TensorType
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


def _binary(x: Array, t: Array, weight: Array | float = 1.0) -> float:
    return float((weight * t * np.logaddexp(0, -x) + (1 - t) * np.logaddexp(0, x)).mean(axis=1).sum())


def _log_softmax(x: Array) -> Array:
    return np.asarray(x - np.log(np.exp(x).sum(1, keepdims=True)))


def _weighted(x: Array, labels: Array, weights: Array, smoothing: float, ignored: int) -> tuple[float, float]:
    """PyTorch's definition: the sum over kept labels of -Σ w·q·log p, and of the labels' own weights."""
    classes = x.shape[1]
    rows = np.moveaxis(_log_softmax(x), 1, -1).reshape(-1, classes)
    flat = labels.ravel()
    rows, flat = rows[flat != ignored], flat[flat != ignored]
    q = (1 - smoothing) * np.eye(classes)[flat] + smoothing / classes
    return float(-(weights * q * rows).sum()), float(weights[flat].sum())


def _focal(x: Array, t: Array, alpha: float, gamma: float) -> float:
    p = 1 / (1 + np.exp(-x))
    kept = np.where(t == 1, p, 1 - p)
    share = np.where(t == 1, alpha, 1 - alpha)
    return float((-share * (1 - kept) ** gamma * np.log(kept)).mean(axis=1).sum())


def _softmax_focal(x: Array, labels: Array, gamma: float) -> float:
    log_p = np.take_along_axis(_log_softmax(x), labels[:, None], axis=1)
    return float((-((1 - np.exp(log_p)) ** gamma) * log_p).sum())


def _huber(d: Array, delta: float) -> float:
    loss = np.where(np.abs(d) <= delta, d**2 / 2, delta * (np.abs(d) - delta / 2))
    return float(loss.mean((1, 2, 3)).sum())


def _dice(p: Array, g: Array) -> float:
    overlap, ours, theirs = ((v.reshape(*v.shape[:2], -1)).sum(-1) for v in (p * g, p, g))
    return float((1 - (2 * overlap + 1e-5) / (ours + theirs + 1e-5)).mean(1).sum())


WEIGHTS = (0.5, 2.0, 0.0, 1.5)
PIXELS, PIXEL_LABELS = RNG.standard_normal((2, 4, 3, 5)), RNG.integers(0, 4, (2, 3, 5))
HOLES = np.where(RNG.uniform(size=(2, 3, 5)) < 0.3, 255, PIXEL_LABELS)
SOFT = RNG.dirichlet(np.ones(4), 6)
MASKS = RNG.integers(0, 2, (2, 4, 3, 5)).astype(np.float64)
ONE_HOT = np.moveaxis(np.eye(4)[PIXEL_LABELS], -1, 1)
SOFT_WEIGHTED = 0.9 * SOFT + 0.1 / 4

CASES: list[tuple[Loss, Array, Array, float, float]] = [
    (losses.SoftmaxCrossEntropy(), LOGITS, LABELS, _cross_entropy(LOGITS, LABELS, 0.0), 6),
    (losses.SoftmaxCrossEntropy(0.1), LOGITS, LABELS, _cross_entropy(LOGITS, LABELS, 0.1), 6),
    (losses.SoftmaxCrossEntropy(), np.array([[150.0, -150.0]]), np.array([1]), 300.0, 1),
    (
        losses.SoftmaxCrossEntropy(0.1, class_weights=WEIGHTS),
        *(LOGITS, LABELS, *_weighted(LOGITS, LABELS, np.array(WEIGHTS), 0.1, -100)),
    ),
    (
        losses.SoftmaxCrossEntropy(0.1, class_weights=WEIGHTS, ignore_index=-100),
        *(LOGITS, np.where(LABELS == 1, -100, LABELS)),
        *_weighted(LOGITS, np.where(LABELS == 1, -100, LABELS), np.array(WEIGHTS), 0.1, -100),
    ),
    (losses.SoftmaxCrossEntropy(ignore_index=7), LOGITS, np.full(6, 7), 0.0, 0),
    (  # smoothing leaves a sum where all labels weigh 0
        losses.SoftmaxCrossEntropy(0.1, class_weights=WEIGHTS),
        *(LOGITS, np.full(6, 2), *_weighted(LOGITS, np.full(6, 2), np.array(WEIGHTS), 0.1, -100)),
    ),
    (
        losses.PixelCrossEntropy(),
        *(PIXELS, PIXEL_LABELS, _weighted(PIXELS, PIXEL_LABELS, np.ones(4), 0.0, 255)[0], 30),
    ),
    (
        losses.PixelCrossEntropy(0.2, ignore_index=255),
        *(PIXELS, HOLES, *_weighted(PIXELS, HOLES, np.ones(4), 0.2, 255)),
    ),
    (
        losses.PixelCrossEntropy(class_weights=WEIGHTS, ignore_index=255),
        *(PIXELS, HOLES, *_weighted(PIXELS, HOLES, np.array(WEIGHTS), 0.0, 255)),
    ),
    (losses.DenseCrossEntropy(), LOGITS, SOFT, float(-(SOFT * _log_softmax(LOGITS)).sum()), 6),
    (
        losses.DenseCrossEntropy(0.1, class_weights=WEIGHTS),
        *(LOGITS, SOFT, float(-(np.array(WEIGHTS) * SOFT_WEIGHTED * _log_softmax(LOGITS)).sum()), 6),
    ),
    (losses.DenseCrossEntropy(), PIXELS, ONE_HOT, float(-(ONE_HOT * _log_softmax(PIXELS)).sum()), 30),
    (losses.SoftmaxFocal(), LOGITS, LABELS, _softmax_focal(LOGITS, LABELS, 2.0), 6),
    (losses.SoftmaxFocal(0.5), LOGITS, LABELS, _softmax_focal(LOGITS, LABELS, 0.5), 6),
    (losses.SoftmaxFocal(0.0), LOGITS, LABELS, _cross_entropy(LOGITS, LABELS, 0.0), 6),
    (losses.SoftmaxFocal(), PIXELS, PIXEL_LABELS, _softmax_focal(PIXELS, PIXEL_LABELS, 2.0), 30),
    (losses.SoftmaxFocal(ignore_index=7), LOGITS, np.full(6, 7), 0.0, 0),
    (losses.SoftmaxFocal(0.5), np.array([[150.0, -150.0]]), np.array([0]), 0.0, 1),
    (losses.BinaryCrossEntropy(), LOGITS, BINARY, _binary(LOGITS, BINARY), 6),
    (losses.BinaryCrossEntropy(), np.array([[500.0], [-500.0]]), np.array([[0.0], [1.0]]), 1000.0, 2),
    (losses.BinaryCrossEntropy(), LOGITS, np.full((6, 4), 0.3), _binary(LOGITS, np.full((6, 4), 0.3)), 6),
    (losses.BinaryCrossEntropy(3.0), LOGITS, BINARY, _binary(LOGITS, BINARY, 3.0), 6),
    (losses.BinaryCrossEntropy(WEIGHTS), LOGITS, BINARY, _binary(LOGITS, BINARY, np.array(WEIGHTS)), 6),
    (losses.BinaryFocal(), LOGITS, BINARY, _focal(LOGITS, BINARY, 0.25, 2.0), 6),
    (losses.BinaryFocal(0.6, 0.5), LOGITS, BINARY, _focal(LOGITS, BINARY, 0.6, 0.5), 6),
    (losses.BinaryFocal(0.5, 0.0), LOGITS, BINARY, _binary(LOGITS, BINARY) / 2, 6),
    (losses.MeanSquaredError(), IMAGES, WANTED, float(((IMAGES - WANTED) ** 2).mean((1, 2, 3)).sum()), 6),
    (losses.MeanAbsoluteError(), IMAGES, WANTED, float(np.abs(IMAGES - WANTED).mean((1, 2, 3)).sum()), 6),
    (losses.Huber(), IMAGES, WANTED, _huber(IMAGES - WANTED, 1.0), 6),
    (losses.Huber(0.3), IMAGES, WANTED, _huber(IMAGES - WANTED, 0.3), 6),
    (losses.Dice(), PIXELS, PIXEL_LABELS, _dice(np.exp(_log_softmax(PIXELS)), ONE_HOT), 2),
    (losses.BinaryDice(), PIXELS, MASKS, _dice(1 / (1 + np.exp(-PIXELS)), MASKS), 2),
]


def test_every_loss_has_a_row() -> None:
    assert exported(losses, Loss) <= {type(loss) for loss, *_ in CASES} | {losses.Weighted}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    ("loss", "output", "target", "expected", "counted"), CASES, ids=lambda v: str(v)[:60]
)
def test_value(
    loss: Loss, output: Array, target: Array, expected: float, counted: float, dtype: type
) -> None:
    """The sum, and what divides it, in the element type of the graph."""
    runtime = run
    if dtype is np.float64 and target.dtype == np.int64:
        runtime = run_reference  # ONNX Runtime has no OneHot of float64
    total, count = emitted(loss.emit, _feeds(output, target, dtype), runtime)
    tolerance = 2e-6 if dtype is np.float32 else 1e-12
    weighted = getattr(loss, "class_weights", None) and not isinstance(loss, losses.DenseCrossEntropy)
    assert (total.dtype, total.shape, count.shape) == (dtype, (), ())
    assert count.dtype == (dtype if weighted else np.int64)
    assert total == pytest.approx(expected, rel=tolerance, abs=1e-12)
    assert count == pytest.approx(counted, rel=tolerance)


@pytest.mark.parametrize(
    ("loss", "output", "target", "expected", "counted"), CASES, ids=lambda v: str(v)[:60]
)
def test_gradient_of_the_mean(
    loss: Loss, output: Array, target: Array, expected: float, counted: float
) -> None:
    """Along a random direction against central differences; finite, and 0 where nothing counts."""

    def mean(builder: Builder, output: ir.Value, target: ir.Value) -> tuple[ir.Value, ir.Value]:
        value = loss.mean(builder, *loss.emit(builder, output, target))
        (gradient,) = gradients(builder, value, [output])
        assert gradient is not None
        return value, gradient

    def at(step: float) -> tuple[Array, Array]:
        value, gradient = emitted(mean, _feeds(output + step * way, target, np.float64), run_reference)
        return value, gradient

    way = np.random.default_rng(1).standard_normal(output.shape)
    value, gradient = at(0.0)
    assert value == pytest.approx(expected / counted if counted else 0.0, rel=1e-9, abs=1e-12)
    slope = (at(1e-5)[0] - at(-1e-5)[0]) / 2e-5
    assert np.vdot(gradient, way) == pytest.approx(float(slope), rel=1e-5, abs=1e-8)
    single = emitted(mean, _feeds(output, target, np.float32))[1]
    np.testing.assert_allclose(single, gradient, rtol=1e-4, atol=1e-5 * np.abs(gradient).max() + 1e-12)


def _feeds(output: Array, target: Array, dtype: type) -> dict[str, Array]:
    return {
        "output": output.astype(dtype),
        "target": target if target.dtype == np.int64 else target.astype(dtype),
    }


WITHOUT_PEER = (losses.SoftmaxFocal, losses.BinaryFocal, losses.Dice, losses.BinaryDice)


@pytest.mark.oracle
@pytest.mark.parametrize(
    ("loss", "output", "target", "expected", "counted"),
    [case for case in CASES if not isinstance(case[0], WITHOUT_PEER) and case[-1]],  # 0 / 0 is NaN there
    ids=lambda v: str(v)[:60],
)
def test_mean_is_pytorchs(loss: Loss, output: Array, target: Array, expected: float, counted: float) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is the oracle of losses (extra [oracle])")
    theirs = _pytorch(torch, loss)(torch.tensor(output), torch.tensor(target)).item()
    assert expected / counted == pytest.approx(theirs, rel=1e-12)


def _pytorch(torch: Any, o: Any) -> Callable[..., Any]:
    F = torch.nn.functional  # noqa: N806 -- as everybody writes it

    def tensor(weights: Any) -> Any:
        return None if weights is None else torch.tensor(weights, dtype=torch.float64)

    match o:
        case losses.DenseCrossEntropy():
            options = {"weight": tensor(o.class_weights), "label_smoothing": o.label_smoothing}
            return lambda x, t: F.cross_entropy(x, t, **options)
        case losses.SoftmaxCrossEntropy():
            options = {"weight": tensor(o.class_weights), "label_smoothing": o.label_smoothing}
            ignored = -100 if o.ignore_index is None else o.ignore_index
            return lambda x, t: F.cross_entropy(x, t, **options, ignore_index=ignored)
        case losses.BinaryCrossEntropy():
            return lambda x, t: F.binary_cross_entropy_with_logits(x, t, pos_weight=tensor(o.pos_weight))
        case losses.MeanSquaredError():
            return lambda x, t: F.mse_loss(x, t)
        case losses.MeanAbsoluteError():
            return lambda x, t: F.l1_loss(x, t)
    return lambda x, t: F.huber_loss(x, t, delta=o.delta)


FLOAT = ir.DataType.FLOAT
TARGETS: list[tuple[Loss, tuple[Dim, ...], TargetSpec]] = [
    (losses.SoftmaxCrossEntropy(), ("N", 10), TargetSpec("label", "class", "int64", ("N",))),
    (losses.BinaryCrossEntropy(), ("N", 1), TargetSpec("target", "binary", "float32", ("N", 1))),
    (
        losses.SoftmaxCrossEntropy(ignore_index=-1),
        ("N", 10),
        TargetSpec("label", "class", "int64", ("N",), -1),
    ),
    (losses.PixelCrossEntropy(), ("N", 21, "H", 8), TargetSpec("label", "class", "int64", ("N", "H", 8))),
    (losses.SoftmaxFocal(), ("N", 21, 8, 8), TargetSpec("label", "class", "int64", ("N", 8, 8))),
    (losses.DenseCrossEntropy(), ("N", 3), TargetSpec("target", "distribution", "float32", ("N", 3))),
    (losses.Dice(), ("N", 21, 8, 8), TargetSpec("label", "class", "int64", ("N", 8, 8))),
    (losses.BinaryDice(), ("N", 1, 8, 8), TargetSpec("target", "binary", "float32", ("N", 1, 8, 8))),
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
        (
            losses.PixelCrossEntropy(),
            ("N", 10),
            "PixelCrossEntropy takes logits [N, classes, H, W] of two or more classes; the network's output "
            "is float[N, 10]. For one label an image use losses.SoftmaxCrossEntropy().",
        ),
        (
            losses.Dice(),
            ("N", 1, 8, 8),
            "Dice takes logits [N, classes, H, W] of two or more classes; the network's output is "
            "float[N, 1, 8, 8]. End it with nn.Conv2d(classes, 1), or use losses.BinaryCrossEntropy().",
        ),
        (
            losses.BinaryDice(),
            ("N", 4),
            "BinaryDice takes logits [N, C, H, W]; the network's output is float[N, 4]. For one answer an "
            "image use losses.BinaryCrossEntropy().",
        ),
        (
            losses.SoftmaxCrossEntropy(class_weights=[1.0, 2.0]),
            ("N", 3),
            "SoftmaxCrossEntropy: class_weights has 2 numbers for an output float[N, 3]. Give one for each "
            "class, in the order of the labels.",
        ),
    ],
)
def test_refused_outputs(loss: Loss, dims: tuple[Dim, ...], text: str) -> None:
    with pytest.raises(ShapeError) as caught:
        loss.target(TensorType(FLOAT, dims))
    assert str(caught.value) == text


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (
            lambda: losses.SoftmaxCrossEntropy(label_smoothing=1.0),
            "SoftmaxCrossEntropy: label_smoothing must be",
        ),
        (
            lambda: losses.SoftmaxCrossEntropy(class_weights=[1, -1]),
            "SoftmaxCrossEntropy: each of class_weights",
        ),
        (
            lambda: losses.PixelCrossEntropy(class_weights=cast(Any, "1")),
            "PixelCrossEntropy: class_weights must be",
        ),
        (
            lambda: losses.PixelCrossEntropy(ignore_index=cast(Any, 1.0)),
            "PixelCrossEntropy: ignore_index must be an",
        ),
        (
            lambda: losses.BinaryCrossEntropy(pos_weight=-1.0),
            "BinaryCrossEntropy: pos_weight must be a number",
        ),
        (lambda: losses.BinaryFocal(alpha=1.0), "BinaryFocal: alpha must be a number above 0 and below 1"),
        (lambda: losses.SoftmaxFocal(gamma=-1.0), "SoftmaxFocal: gamma must be a number at least 0"),
        (lambda: losses.Huber(0.0), "Huber: delta must be a number above 0"),
        (lambda: losses.Dice(smooth=0.0), "Dice: smooth must be a number above 0"),
    ],
)
def test_errors(make: Callable[[], Loss], text: str) -> None:
    with pytest.raises(GraphFileError, match=rf"^test_losses\.py:\d+: {text}"):
        make()


@pytest.mark.parametrize(
    ("loss", "formula"),
    [
        (losses.SoftmaxCrossEntropy(), lambda x: np.exp(x) / np.exp(x).sum(1, keepdims=True)),
        (losses.BinaryCrossEntropy(), lambda x: 1 / (1 + np.exp(-x))),
        (losses.MeanSquaredError(), lambda x: x),
    ],
)
def test_activation_of_predictions(loss: Loss, formula: Callable[[Array], Array]) -> None:
    (y,) = emitted(lambda builder, x: (loss.activate(builder, x),), {"x": LOGITS})
    np.testing.assert_allclose(y, formula(LOGITS), rtol=1e-6)


def test_description() -> None:
    assert losses.SoftmaxCrossEntropy(0.1).describe() == {
        "name": "SoftmaxCrossEntropy",
        "label_smoothing": 0.1,
        "class_weights": None,
        "ignore_index": None,
    }
