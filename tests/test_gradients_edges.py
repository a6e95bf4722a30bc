"""Where a derivative is not defined, or where zero meets infinity: what the gradient is there."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from cases import CASES, Case, case
from cases.row import conditions, indices
from oracle import DOUBLE, FLOAT, choices, differentiate, run, session
from reference import evaluator

LN2 = float(np.log(2.0))

Numbers = float | Sequence["Numbers"]
"""Of a tensor, as nested lists."""

TIES: list[tuple[Case, list[Numbers], list[Numbers]]] = [
    (case("Max", "3", "3"), [[1, 2, 3], [1, 5, 0]], [[0.5, 0, 1], [0.5, 1, 0]]),
    (case("Min", "2", "", "2"), [[1, 2], 1, [1, 0]], [[1 / 3, 0], 1 / 3, [1 / 3, 1]]),
    (case("ReduceMax", "2 3", [1]), [[[1, 1, 0], [2, 2, 2]]], [[[0.5, 0.5, 0], [1 / 3] * 3]]),
    (case("ReduceMax", "2 2", keepdims=0), [[[4, 1], [4, 4]]], [[[1 / 3, 0], [1 / 3, 1 / 3]]]),
    (case("ReduceMin", "4", [0], keepdims=0), [[1, 0, 0, 2]], [[0, 0.5, 0.5, 0]]),
    (
        case("ScatterElements", "3", np.array([0, 0, 2]), "3", reduction="max"),
        [[1, 2, 3], [1, 1, 5]],
        [[1 / 3, 1, 0], [1 / 3, 1 / 3, 1]],
    ),
    (
        case("ScatterND", "2 2", np.array([[1], [1]]), "2 2", reduction="min"),
        [[[9, 9], [0, 3]], [[0, 3], [5, 2]]],
        [[[1, 1], [0.5, 0]], [[0.5, 0], [0, 1]]],
    ),
    (case("TopK", "3", [1], outputs=2, projected=1), [[2, 2, 1]], [[1, 0, 0]]),
    (case("GlobalMaxPool", "1 1 2 2"), [[[[[1, 1], [0, 1]]]]], [[[[[1 / 3, 1 / 3], [0, 1 / 3]]]]]),
]

KINKS: list[tuple[Case, list[Numbers], list[Numbers]]] = [
    (case("Clip", "5", "", ""), [[-2, -1, 0, 1, 2], -1, 1], [[0, 0, 1, 0, 0], 2, 2]),
    (case("Clip", "3", "", ""), [[0, 1, 2], 1, 1], [[0, 0, 0], 0, 3]),
    (case("PRelu", "3", "3"), [[-1, 0, 1], [4, 5, 6]], [[4, 5, 1], [-1, 0, 0]]),
    (case("Elu", "1", alpha=0.25), [[0]], [[0.25]]),
    (case("Selu", "1", alpha=0.5, gamma=2.0), [[0]], [[1]]),
    (case("ThresholdedRelu", "2", alpha=1.0), [[1, 2]], [[0, 1]]),
    (case("Shrink", "3", lambd=1.0), [[-1, 1, 2]], [[0, 0, 1]]),
    (case("HardSigmoid", "3", alpha=0.5), [[-1, 0, 1]], [[0, 0.5, 0]]),
    (case("HardSwish", "3"), [[-3, 0, 3]], [[0, 0.5, 1]]),
    (case("Softsign", "2"), [[0, 1]], [[1, 0.25]]),
    (case("ReduceL1", "3"), [[0, -2, 3]], [[0, -1, 1]]),
]

ZEROS: list[tuple[Case, list[Numbers], list[Numbers]]] = [
    (case("ReduceProd", "2 3", [1]), [[[2, 0, 3], [0, 0, 3]]], [[[0, 6, 0], [0, 0, 0]]]),
    (case("ReduceL2", "2 2", [1]), [[[0, 0], [3, 4]]], [[[0, 0], [0.6, 0.8]]]),
    (case("Pow", "4", "4"), [[0, 0, 0, 2], [0, 1, 2, 0]], [[0, 1, 0, 0], [0, 0, 0, LN2]]),
    (case("Pow", "2", "2"), [[-2, -2], [3, 0]], [[12, 0], [0, 0]]),
    (case("Pow", "2", np.array(1.0)), [[0, -1]], [[1, 1]]),
    (case("Pow", "2", np.array(2)), [[0, -1]], [[0, -2]]),
    (
        case("ScatterElements", "3", np.array([0, 0, 1]), "3", reduction="mul"),
        [[0, 0, 3], [2, 5, 0]],
        [[10, 0, 1], [0, 0, 0]],
    ),
    (case("LpPool", "1 1 4", kernel_shape=[2], strides=[2]), [[[[0, 0, 3, 4]]]], [[[[0, 0, 0.6, 0.8]]]]),
    (case("LpPool", "1 1 3", kernel_shape=[2], p=3), [[[[0, 0, 2]]]], [[[[0, 0, 1]]]]),
    (case("GlobalLpPool", "2 1 2"), [[[[0, 0]], [[3, -4]]]], [[[[0, 0]], [[0.6, -0.8]]]]),
    (case("LpNormalization", "2 2"), [[[0, 0], [3, 4]]], [[[0, 0], [0.032, -0.024]]]),
    (case("Where", conditions("2"), "2", "2"), [[True, False], [1, 2], [3, 4]], [[1, 0], [0, 1]]),
]


@pytest.mark.parametrize(
    ("row", "inputs", "expected"),
    [*TIES, *KINKS, *ZEROS],
    ids=lambda arg: str(arg) if isinstance(arg, Case) else "",
)
def test_the_gradient_of_the_sum_of_all_outputs(
    row: Case, inputs: list[Numbers], expected: list[Numbers]
) -> None:
    feeds = {
        f"x{i}": np.array(x, bool if spec.dtype else np.float64)
        for i, (x, spec) in enumerate(zip(inputs, row.inputs, strict=True))
    }
    differentiated = [name for name, spec in zip(feeds, row.inputs, strict=True) if spec.differentiated]
    model = differentiate(row, DOUBLE)
    feeds |= {
        given.name: np.ones([dim.dim_value for dim in given.type.tensor_type.shape.dim])
        for given in model.graph.input
        if given.name.startswith("v")
    }
    with np.errstate(all="ignore"):  # of the forward node, at its pole
        exact = run(evaluator(model), feeds)
    single = run(session(differentiate(row, FLOAT)), feeds)
    for name, gradient in zip(differentiated, expected, strict=True):
        for values, tolerance in ((exact, 1e-12), (single, 1e-6)):
            np.testing.assert_allclose(values[f"gradient/{name}"], gradient, tolerance, tolerance)


def test_no_gradient_adds_by_scatter_nd() -> None:
    """ONNX Runtime's ScatterND loses sums on more than one thread where indices repeat."""
    rows = [
        *{row.op: row for row in CASES if "Gather" in row.op or "Scatter" in row.op}.values(),
        case("Gather", "5 3", indices("4", 5)),
        case("Gather", "4 3", [2, 0, 3, 1]),
    ]
    models = [differentiate(row, DOUBLE, choice) for row in rows for choice in choices(row)]
    for model in models:
        made = [node for node in model.graph.node if node.name.startswith("grad/")]
        made += [node for function in model.functions for node in function.node]
        assert not any(node.op_type == "ScatterND" and node.attribute for node in made)
