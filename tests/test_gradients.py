"""Every gradient rule and every body, over the whole table of cases; and the checks themselves."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from cases import CASES, Array, Case, case, fixed
from oracle import DOUBLE, assert_close, check, choices, differentiate, measure, rows_by_body, run
from reference import evaluator

from cnnc.autodiff import RULES, WITHOUT_GRADIENT, engine
from cnnc.autodiff.rule import Rule
from cnnc.lowering import BODIES

OFF = 1.0005
GEMM: Callable[..., Any] = RULES["Gemm"]


@pytest.mark.parametrize("row", CASES, ids=str)
def test_gradients_are_slopes(row: Case) -> None:
    check(row)


def test_every_row_is_another() -> None:
    assert len({str(row) for row in CASES}) == len(CASES)


def test_every_rule_has_a_row() -> None:
    assert not RULES.keys() - {row.op for row in CASES}


def test_every_body_has_a_row() -> None:
    registered = {(body.op, body.name) for bodies in BODIES.values() for body in bodies}
    assert not registered - rows_by_body().keys()


# The maximum of a window that several elements share, and the kink of ReLU.


@pytest.mark.parametrize(
    "row", [row for row in CASES if row.op == "MaxPool" and "auto_pad" not in row.attributes], ids=str
)
def test_ties_share_evenly(row: Case) -> None:
    """Blank regions, as images have them: whole windows of one value."""
    for sizes in row.batches:
        feeds = measure(row, sizes).feeds
        x = np.random.default_rng(0).choice([0.0, 0.0, 0.0, 1.0], feeds["x0"].shape)
        expected = max_pool_gradient(x, feeds["v0"], **row.attributes)
        for choice in choices(row):
            dx = run(evaluator(differentiate(row, DOUBLE, choice)), {**feeds, "x0": x})["gradient/x0"]
            assert_close(dx, expected, 1e-12, f"{row} with {choice}")
            assert dx.sum() == pytest.approx(feeds["v0"].sum(), abs=1e-12)


def max_pool_gradient(
    x: Array,
    dy: Array,
    kernel_shape: list[int],
    strides: list[int] | None = None,
    pads: list[int] | None = None,
    dilations: list[int] | None = None,
    ceil_mode: int = 0,
    storage_order: int = 0,
) -> Array:
    """Window by window: the largest elements share dy evenly."""
    rank = len(kernel_shape)
    strides, dilations, begins = strides or [1] * rank, dilations or [1] * rank, pads or [0] * rank
    dx = np.zeros_like(x)
    for place in np.ndindex(*dy.shape):
        corner = [p * s - b for p, s, b in zip(place[2:], strides, begins, strict=False)]
        taps = [
            (*place[:2], *(c + t * d for c, t, d in zip(corner, tap, dilations, strict=True)))
            for tap in np.ndindex(*kernel_shape)
        ]
        seen = [tap for tap in taps if all(0 <= i < n for i, n in zip(tap, x.shape, strict=True))]
        largest = max(x[tap] for tap in seen)
        winners = [tap for tap in seen if x[tap] == largest]
        for tap in winners:
            dx[tap] += dy[place] / len(winners)
    return dx


@pytest.mark.parametrize(("op", "at_zero"), [("Relu", 0.0), ("LeakyRelu", 0.01), ("Abs", 0.0)])
@pytest.mark.parametrize("x", [0.0, 1e-9])
def test_at_a_kink(op: str, at_zero: float, x: float) -> None:
    """The left slope of ReLU and LeakyReLU, the mean slope of the absolute value, as in PyTorch."""
    row = next(row for row in CASES if row.op == op)
    shape = measure(row, row.batches[0]).feeds["x0"].shape
    for choice in choices(row):
        feeds = {"x0": np.full(shape, x), "v0": np.ones(shape)}
        dx = run(evaluator(differentiate(row, DOUBLE, choice)), feeds)["gradient/x0"]
        np.testing.assert_allclose(dx, 1.0 if x else at_zero, rtol=1e-6)


def test_a_dropout_mask_drops_its_ratio_and_keeps_the_mean() -> None:
    """No slope sees a wrong factor here: the forward pass would be wrong alike."""
    row = case("DropoutMask", fixed("N 64"), 7, 3, ratio=0.25, stream=5)
    for choice in choices(row):
        mask = run(evaluator(differentiate(row, DOUBLE, choice)), {"x0": np.ones((50, 64))})["y0"]
        np.testing.assert_allclose(np.unique(mask), [0.0, 4 / 3], rtol=1e-15)
        assert (mask == 0).mean() == pytest.approx(0.25, abs=0.03)  # four standard deviations


# Who tests the tests: what is wrong on purpose is caught.


@pytest.mark.parametrize("op", sorted(RULES.keys() - set(WITHOUT_GRADIENT)))
def test_a_rule_off_by_half_a_thousandth_is_caught(op: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rule = RULES[op]

    def wrong(op: Any, *dys: Any) -> Any:
        found = rule(op, *dys)
        each = [found] if isinstance(found, ir.Value) else found
        return [None if dx is None else op.Mul(dx, OFF) for dx in each or ()]

    monkeypatch.setitem(RULES, op, wrong)
    with pytest.raises(AssertionError, match="off by"):
        check(next(row for row in CASES if row.op == op))


@pytest.mark.parametrize(
    ("op", "name"),
    [(b.op, b.name) for op in sorted(BODIES.keys() - {"DropoutMask", "UniformDraws"}) for b in BODIES[op]],
)
def test_a_body_off_by_half_a_thousandth_is_caught(
    op: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wrong(call: Any, *inputs: Any) -> Any:
        results = body.emit(call, *inputs)
        return [call.Mul(y, OFF) for y in ([results] if isinstance(results, ir.Value) else results)]

    (body,) = (body for body in BODIES[op] if body.name == name)
    row = rows_by_body()[op, name]
    monkeypatch.setitem(BODIES, op, [replace(b, emit=wrong) if b is body else b for b in BODIES[op]])
    with pytest.raises(AssertionError, match="off by"):
        check(row)


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("Sub(N 3, N 3)", lambda op, dy: (dy, dy)),
        ("Div(3, N 1)", lambda op, dy: (op.Div(dy, op.inputs[1]), op.Mul(dy, op.y))),
        ("Sigmoid(N 3)", lambda op, dy: op.Mul(dy, op.y)),
        ("Gemm(N 4, 4 5, N 1, beta=0.25)", lambda op, dy: (*GEMM(op, dy)[:2], dy)),
        ("Transpose(2 N 3 2, perm=[1, 3, 0, 2])", lambda op, dy: op.Transpose(dy, perm=[1, 3, 0, 2])),
        ("DropoutMask(N 4 3) graph", lambda op, dmask: dmask),
        ("Sign(N 3) graph", lambda op, dy: dy),
        ("Round(N 3) graph", lambda op, dy: dy),
    ],
)
def test_a_wrong_rule_is_caught(name: str, wrong: Rule, monkeypatch: pytest.MonkeyPatch) -> None:
    (row,) = (row for row in CASES if str(row) == name)
    check(row)
    monkeypatch.setitem(RULES, row.op, wrong)
    with pytest.raises(AssertionError):
        check(row)


def test_ties_that_all_win_are_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    def winner_takes_all(op: Any, dy: Any, x: Any, y: Any) -> Any:
        scales = np.array([1, 1, 2, 2], np.float32)
        spread, largest = (
            op.Resize(value, None, scales, mode="nearest", dims=op.dims(x)) for value in (dy, y)
        )
        return op.Mul(spread, op.CastLike(op.Equal(x, largest), x))

    row = next(row for row in CASES if row.op == "MaxPool")
    monkeypatch.setitem(BODIES, "MaxPoolGrad", [replace(BODIES["MaxPoolGrad"][0], emit=winner_takes_all)])
    check(row)  # right where nothing ties
    with pytest.raises(AssertionError, match="off by"):
        test_ties_share_evenly(row)


def test_a_missing_unbroadcast_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    row = next(row for row in CASES if str(row) == "Add(N 3 4, 3 1)")
    monkeypatch.setattr(engine, "unbroadcast", lambda builder, gradient, dims: gradient)
    with pytest.raises(AssertionError, match=r"the rule of Add gave double\[N, 3, 4\]"):
        check(row)
