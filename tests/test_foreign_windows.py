"""Pools of foreign models have as many windows as runtimes count, and every one its gradient."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cases.row import having
from foreign_models import model, runnable, save, session, weight
from hypothesis import given
from hypothesis import strategies as st
from onnx import helper
from random_rows import SETTINGS, Draw, windows

from cnnc.foreign.coverage import missing
from cnnc.foreign.importing import import_network
from cnnc.foreign.reading import read

pytestmark = pytest.mark.usefixtures("in_process")

Pool = tuple[int, str, list[int], dict[str, Any]]
"""Opset, operator, sizes and attributes."""

EARLY: list[Pool] = [
    (opset, op, shape, having(kernel_shape=[2] * len(shape), ceil_mode=1, **attributes))
    for ops, shape, attributes in [
        (5, [4], having(strides=[2], pads=[0, 1])),
        (5, [5], having(strides=[3])),  # a gap, and the last element not seen
        (5, [4, 5], having(strides=[2, 2], pads=[0, 0, 1, 0])),  # one axis early, the other not
        (5, [4, 4], having(strides=[2, 2], pads=[1, 0, 1, 1])),
        (2, [4, 4], having(strides=[2, 2], pads=[1, 0, 1, 1], count_include_pad=1)),
        (1, [6, 5], having(strides=[2, 1], pads=[1, 0, 1, 0], dilations=[2, 3])),
    ]
    for op, opset in [
        *(("AveragePool", 22), ("AveragePool", 18), ("MaxPool", 12), ("MaxPool", 22), ("LpPool", 18)),
    ][:ops]
]
"""A last window would begin in the end pad, or beyond the last element."""


@st.composite
def pools(draw: Draw) -> Pool:
    op = draw(st.sampled_from(["MaxPool", "AveragePool", "LpPool"]))
    opset = draw(st.sampled_from([12, 18, 19, 22] if op != "LpPool" else [18, 22]))
    dilated = op != "AveragePool" or opset >= 19
    shape, attributes = draw(windows(largest_pad=-1, dilated=dilated))
    flags = {"ceil_mode": draw(st.sampled_from([0, 1, 1]))}
    if op == "AveragePool":
        flags["count_include_pad"] = draw(st.integers(0, 1))
    return opset, op, shape, {**attributes, **flags}


TOLD: list[Pool] = [
    (11, "Conv", [9, 8], having(strides=[2, 1], dilations=[2, 3])),
    (11, "Conv", [9, 8], having(dilations=[1, 2], kernel_shape=[3, 2])),
    (11, "MaxPool", [7, 9], having(kernel_shape=[1, 2], strides=[2, 3])),
    (11, "AveragePool", [7, 8], having(kernel_shape=[3, 2], strides=[2, 3], count_include_pad=1)),
]
"""Windows whose pads ONNX Runtime does not find itself."""


@pytest.mark.parametrize("upper", [True, False])
@pytest.mark.parametrize("told", TOLD, ids=str)
def test_pads_that_runtimes_do_not_find(told: Pool, upper: bool, tmp_path: Path) -> None:
    """As with the pads that give ⌈size / stride⌉ windows, the odd one at the end or the begin."""
    opset, op, sizes, attributes = told
    begins, ends = [], []
    for axis, size in enumerate(sizes):
        kernel, stride, dilation = (
            attributes.get(name, default)[axis]
            for name, default in [("kernel_shape", [3, 2]), ("strides", [1, 1]), ("dilations", [1, 1])]
        )
        total = max((-(-size // stride) - 1) * stride + dilation * (kernel - 1) + 1 - size, 0)
        begins.append(total // 2 if upper else total - total // 2)
        ends.append(total - begins[-1])
    made = []
    for pads in ({"auto_pad": "SAME_UPPER" if upper else "SAME_LOWER"}, {"pads": begins + ends}):
        reads = ["x", "w"] if op == "Conv" else ["x"]
        node = helper.make_node(op, reads, ["y"], **attributes, **pads)
        tensors = [weight("w", 4, 3, 3, 2)] if op == "Conv" else []
        made.append(model([node], tensors, shape=("N", 3, *sizes), opset=opset))
    image = np.random.default_rng(0).standard_normal((2, 3, *sizes)).astype(np.float32)
    foreign = read(save(made[0], tmp_path / "same.onnx"))
    (found,) = session(runnable(foreign)).run(None, {"x": image})
    (expected,) = session(made[1].SerializeToString()).run(None, {"x": image})
    assert found.shape[2:] == tuple(
        -(-n // s) for n, s in zip(sizes, attributes.get("strides", [1, 1]), strict=True)
    )
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("early", EARLY, ids=str)
def test_a_last_window_that_begins_in_the_end_pad(early: Pool) -> None:
    _same_as_its_source(*early)


def test_forms_of_pools() -> None:
    @SETTINGS
    @given(pools())
    def holds(pool: Pool) -> None:
        _same_as_its_source(*pool)

    holds()


def _same_as_its_source(opset: int, op: str, shape: list[int], attributes: dict[str, Any]) -> None:
    """The normalised graph gives what the source gives, and every operator in it has its gradient."""
    node = helper.make_node(op, ["c"], ["y"], op, **attributes)
    rank = len(shape)
    conv = helper.make_node("Conv", ["x", "w"], ["c"], "conv")
    proto = model([conv, node], [weight("w", 2, 2, *[1] * rank)], opset=opset, shape=("N", 2, *shape))
    image = np.random.default_rng(0).standard_normal((2, 2, *shape)).astype(np.float32)
    expected = session(proto.SerializeToString()).run(None, {"x": image})[0]
    with tempfile.TemporaryDirectory() as folder:
        foreign = read(save(proto, Path(folder) / "pool.onnx"))
    assert not foreign.problems, foreign.problems
    found = session(runnable(foreign)).run(None, {"x": image})[0]
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    assert not missing(import_network(foreign).network)
