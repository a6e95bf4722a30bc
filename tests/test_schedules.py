"""Schedules: what the graph computes is what `at` says, at small and huge steps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import numpy as np
import onnx_ir as ir
import pytest
from exported import exported
from traced import emitted

from cnnc import schedules
from cnnc.errors import GraphFileError
from cnnc.schedules import Constant, Cosine, Schedule, Step, Warmup

SCHEDULES = [
    Constant(0.1),
    Step(0.1, every=30, factor=0.5),
    Step(0.1, every=1_000_003),
    Cosine(0.1, steps=1000),
    Cosine(0.1, steps=300, final=0.01),
    Cosine(0.1, steps=3_000_000_000),
    Warmup(10, Constant(0.1)),
    Warmup(10, Cosine(0.1, steps=90)),
    Warmup(1, Step(0.1, every=5)),
]
STEPS = (0, 1, 8, 9, 10, 11, 29, 30, 31, 99, 100, 299, 300, 999, 1000, 1_000_002, 1_000_003, 2_147_483_646)


def test_every_schedule_has_a_row() -> None:
    assert exported(schedules, Schedule) == {type(schedule) for schedule in SCHEDULES}


@pytest.mark.parametrize("schedule", SCHEDULES, ids=str)
@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float32, 1e-6), (np.float64, 1e-14)])
def test_the_graph_computes_at(schedule: Schedule, dtype: type, tolerance: float) -> None:
    """Also where float32 could not hold the step, and to the last step before a cosine ends."""
    kind = ir.DataType.from_numpy(np.dtype(dtype))
    for step in STEPS:
        (rate,) = emitted(lambda builder, s: (schedule.emit(builder, s, kind),), {"step": np.array(step)})
        assert (rate.dtype, rate.shape) == (dtype, ())
        assert rate == pytest.approx(schedule.at(step), rel=tolerance, abs=1e-38), step


@pytest.mark.parametrize(
    ("schedule", "rates"),
    [
        (Constant(0.1), {0: 0.1, 9: 0.1}),
        (Step(0.1, every=3, factor=0.5), {0: 0.1, 2: 0.1, 3: 0.05, 6: 0.025}),
        (Cosine(0.1, steps=4), {0: 0.1, 1: 0.05 * (1 + 0.5**0.5), 2: 0.05, 4: 0.0, 9: 0.0}),
        (Cosine(0.1, steps=4, final=0.02), {0: 0.1, 2: 0.06, 4: 0.02, 9: 0.02}),
        (Warmup(4, Cosine(0.1, steps=4)), {0: 0.025, 1: 0.05, 3: 0.1, 4: 0.1, 6: 0.05, 8: 0.0}),
        (Warmup(2, Warmup(2, Constant(0.1))), {0: 0.025, 1: 0.05, 2: 0.05, 3: 0.1, 4: 0.1}),
    ],
    ids=str,
)
def test_rates(schedule: Schedule, rates: dict[int, float]) -> None:
    assert {step: schedule.at(step) for step in rates} == pytest.approx(rates, abs=1e-12)


def test_base() -> None:
    assert [s.base for s in (Constant(0.1), Step(0.2, 5), Warmup(3, Cosine(0.3, 9)))] == [0.1, 0.2, 0.3]


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: Constant(0), "Constant: rate must be a number above 0, not 0"),
        (lambda: Constant(float("inf")), "Constant: rate must be a number above 0, not inf"),
        (lambda: Step(0.1, every=0), "Step: every must be at least 1, not 0"),
        (lambda: Step(0.1, every=5, factor=0), "Step: factor must be a number above 0, not 0"),
        (lambda: Cosine(0.1, steps=cast(Any, 1e3)), "Cosine: steps must be an integer, not 1000.0"),
        (lambda: Cosine(0.1, steps=5, final=-1), "Cosine: final must be a number at least 0, not -1"),
        (lambda: Warmup(-1, Constant(1)), "Warmup: steps must be at least 1, not -1"),
        (lambda: Warmup(5, cast(Any, 0.1)), "Warmup: schedule must be a schedule, not 0.1"),
    ],
)
def test_errors(make: Callable[[], Any], text: str) -> None:
    with pytest.raises(GraphFileError, match=rf"^test_schedules\.py:\d+: {text}"):
        make()
