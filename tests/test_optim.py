"""Optimizers: a few steps of one parameter against the formulas in float64; clipping; bias correction."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any, cast

import numpy as np
import onnx_ir as ir
import pytest
from exported import exported
from traced import Array, emitted

from cnnc import optim, schedules
from cnnc.errors import GraphFileError
from cnnc.ir import Builder
from cnnc.optim import Optimizer

RNG = np.random.default_rng(0)
START, GRADIENTS = RNG.standard_normal((4, 3)), RNG.standard_normal((5, 4, 3))


def _sgd(o: optim.SGD, p: Array, decay: float) -> Array:
    v = np.zeros_like(p)
    for g in GRADIENTS:
        g = g + decay * p
        v = o.momentum * v + g
        p = p - cast(float, o.learning_rate) * (g + o.momentum * v if o.nesterov else v)
    return p


def _adam(o: optim.Adam, p: Array, decay: float) -> Array:
    m, v = np.zeros_like(p), np.zeros_like(p)
    rate = cast(float, o.learning_rate)
    for t, g in enumerate(GRADIENTS, start=1):
        g = g if o.decoupled else g + decay * p
        m, v = o.beta1 * m + (1 - o.beta1) * g, o.beta2 * v + (1 - o.beta2) * g * g
        p = p - rate * decay * p if o.decoupled else p
        p = p - rate * (m / (1 - o.beta1**t)) / (np.sqrt(v / (1 - o.beta2**t)) + o.epsilon)
    return p


OPTIMIZERS: list[tuple[Any, Callable[..., Array]]] = [
    (optim.SGD(0.1), _sgd),
    (optim.SGD(0.1, weight_decay=0.2), _sgd),
    (optim.SGD(0.1, momentum=0.9, weight_decay=0.2), _sgd),
    (optim.SGD(0.1, momentum=0.9, nesterov=True, weight_decay=0.2), _sgd),
    (optim.SGD(0.1, momentum=0.9, weight_decay=0.2, decay_all=True), _sgd),
    (optim.Adam(0.1), _adam),
    (optim.Adam(0.1, beta1=0.5, beta2=0.9, epsilon=1e-3, weight_decay=0.2), _adam),
    (optim.Adam(0.1, beta1=0.0), _adam),
    (optim.AdamW(0.1), _adam),
    (optim.AdamW(0.1, weight_decay=0.2, decay_all=True), _adam),
]


@pytest.mark.parametrize("decay", [True, False])
@pytest.mark.parametrize(("optimizer", "formula"), OPTIMIZERS, ids=lambda v: getattr(v, "__name__", str(v)))
@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float32, 2e-6), (np.float64, 1e-12)])
def test_steps(
    optimizer: Optimizer, formula: Callable[..., Array], decay: bool, dtype: type, tolerance: float
) -> None:
    def step(
        builder: Builder, done: ir.Value, p: ir.Value, g: ir.Value, *slots: ir.Value
    ) -> tuple[ir.Value, ...]:
        assert p.dtype is not None
        rate = optimizer.schedule.emit(builder, done, p.dtype)
        scalars = optimizer.scalars(builder, done, rate)
        after, following = optimizer.update(builder, p, g, slots, scalars, decay)
        return (after, *following)

    kept = optimizer.slots(START.shape)
    state: list[Array] = [START.astype(dtype), *(np.full(s.shape, s.value, dtype) for s in kept)]
    for done, gradient in enumerate(GRADIENTS):
        slots = {s.name: value for s, value in zip(kept, state[1:], strict=True)}
        state = emitted(step, {"done": np.array(done), "p": state[0], "g": gradient.astype(dtype), **slots})
    decays = optimizer.weight_decay if decay or optimizer.decay_all else 0.0
    np.testing.assert_allclose(state[0], formula(optimizer, START, decays), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(("limit", "scale"), [(1.0, 0.1), (20.0, 1.0)])
def test_clipping_by_global_norm(limit: float, scale: float) -> None:
    a, b = np.full((4, 4), 2.0), np.full(4, 3.0)  # Σ squares is 64 + 36
    optimizer = optim.SGD(clip_norm=limit)
    clipped = emitted(lambda builder, *g: tuple(optimizer.clip(builder, g)), {"a": a, "b": b})
    for before, after in zip((a, b), clipped, strict=True):
        np.testing.assert_allclose(after, before * scale, rtol=2e-7)


def test_no_clipping_adds_no_nodes() -> None:
    builder = Builder(ir.Graph([], [], nodes=[], opset_imports={"": 18}))
    assert optim.SGD().clip(builder, []) == []
    assert not list(builder.graph)


@pytest.mark.parametrize("beta", [0.0, 0.5, 0.9, 0.999, 0.9999])
@pytest.mark.parametrize("step", [0, 1, 10, 999, 100_000, 1_000_000_000])
def test_bias_correction_keeps_float32s_accuracy(beta: float, step: int) -> None:
    optimizer = optim.Adam(beta1=beta)
    exact = -math.expm1((step + 1) * math.log(beta)) if beta else 1.0
    _, c1, _ = emitted(optimizer.scalars, {"step": np.array(step), "rate": np.array(0.1, np.float32)})
    assert c1 == pytest.approx(exact, rel=5e-7)


@pytest.mark.parametrize(
    ("optimizer", "shape", "expected"),
    [
        (optim.SGD(), (2, 3), {}),
        (optim.SGD(momentum=0.9), (2, 3), {"momentum_buffer": (2, 3)}),
        (optim.Adam(), (2, 3), {"exp_avg": (2, 3), "exp_avg_sq": (2, 3)}),
        (optim.NAdam(), (4,), {"exp_avg": (4,), "exp_avg_sq": (4,), "mu_product": ()}),
        (optim.RMSprop(), (4,), {"square_avg": (4,)}),
        (optim.RMSprop(momentum=0.9), (4,), {"square_avg": (4,), "momentum_buffer": (4,)}),
        (
            optim.RMSprop(momentum=0.9, centered=True),
            (4,),
            {"square_avg": (4,), "grad_avg": (4,), "momentum_buffer": (4,)},
        ),
        (optim.Adafactor(), (4,), {"variance": (4,)}),
        (optim.Adafactor(), (8, 2, 3, 5), {"row_var": (8, 2, 3, 1), "col_var": (8, 2, 1, 5)}),
    ],
)
def test_slots(optimizer: Optimizer, shape: tuple[int, ...], expected: dict[str, tuple[int, ...]]) -> None:
    assert {slot.name: slot.shape for slot in optimizer.slots(shape)} == expected


def test_slots_start_at_zero_but_for_two() -> None:
    assert {slot.value for slot in optim.Adam().slots((2,))} == {0.0}
    assert optim.NAdam().slots((2,))[-1].value == 1.0
    assert optim.Adagrad(initial=0.1).slots((2,))[0].value == 0.1


def test_description() -> None:
    rate = schedules.Warmup(5, schedules.Constant(0.1))
    assert optim.SGD(rate, momentum=np.float64(0.9)).describe() == {
        "name": "SGD",
        "learning_rate": {"name": "Warmup", "steps": 5, "schedule": {"name": "Constant", "rate": 0.1}},
        "momentum": 0.9,
        "nesterov": False,
        "weight_decay": 0.0,
        "decay_all": False,
        "clip_norm": None,
    }


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: optim.SGD(learning_rate=0), "SGD: learning_rate must be a number above 0, not 0"),
        (lambda: optim.SGD(learning_rate=cast(Any, "1e-3")), "SGD: learning_rate must be a number above 0"),
        (lambda: optim.SGD(momentum=1.0), "SGD: momentum must be a number at least 0 and below 1, not 1.0"),
        (lambda: optim.SGD(nesterov=True), "SGD: nesterov needs momentum. Set momentum, to 0.9 say"),
        (lambda: optim.Adam(beta2=1), "Adam: beta2 must be a number at least 0 and below 1, not 1"),
        (lambda: optim.AdamW(epsilon=0), "AdamW: epsilon must be a number above 0, not 0"),
        (lambda: optim.Adam(weight_decay=-1), "Adam: weight_decay must be a number at least 0, not -1"),
        (lambda: optim.LAMB(beta1=-1), "LAMB: beta1 must be a number at least 0 and below 1, not -1"),
        (lambda: optim.NAdam(momentum_decay=-1), "NAdam: momentum_decay must be a number at least 0"),
        (lambda: optim.Lion(beta2=1.0), "Lion: beta2 must be a number at least 0 and below 1, not 1.0"),
        (lambda: optim.RMSprop(rho=1.0), "RMSprop: rho must be a number at least 0 and below 1, not 1.0"),
        (lambda: optim.Adagrad(initial=-1.0), "Adagrad: initial must be a number at least 0, not -1.0"),
        (lambda: optim.Adadelta(epsilon=0.0), "Adadelta: epsilon must be a number above 0, not 0.0"),
        (lambda: optim.Adafactor(decay_exponent=0.8), "Adafactor: decay_exponent must be a number at least"),
        (lambda: optim.Adam(clip_norm=0), "Adam: clip_norm must be a number above 0, not 0"),
    ],
)
def test_errors(make: Callable[[], Any], text: str) -> None:
    with pytest.raises(GraphFileError, match=rf"^test_optim\.py:\d+: {text}"):
        make()


def test_what_all_optimizers_have_is_given_by_keyword() -> None:
    for kind in exported(optim, Optimizer):
        first, *others = dataclasses.fields(kind)
        assert (first.name, first.kw_only) == ("learning_rate", False)
        common = {f.name for f in others if f.kw_only}
        assert common == {"weight_decay", "decay_all", "clip_norm", "groups"}
