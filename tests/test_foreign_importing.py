"""What of a foreign model becomes a parameter, what does not, and what its user is told."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from foreign_models import inference, model, save, session, trainer, weight
from onnx import helper, numpy_helper

from cnnc.errors import UnsupportedError
from cnnc.foreign.importing import import_network
from cnnc.foreign.reading import read
from cnnc.foreign.training import Wishes, compile_model

pytestmark = pytest.mark.usefixtures("in_process")

node = helper.make_node


def _tensor(name: str, values: npt.ArrayLike, dtype: npt.DTypeLike = np.float32) -> onnx.TensorProto:
    return numpy_helper.from_array(np.asarray(values, dtype), name)


def _constant(name: str, values: npt.ArrayLike) -> onnx.NodeProto:
    return node("Constant", [], [name], name, value=_tensor(name, values))


def _grouped(literal: bool) -> list[onnx.NodeProto]:
    """Group normalisation as exporters write it; its ones and zeros in nodes, or as initializers."""
    fixed = [_constant("one", [1.0, 1.0]), _constant("zero", [0.0, 0.0])] if literal else []
    return [
        *fixed,
        node("Conv", ["x", "conv.weight"], ["c"], "conv"),
        node("Reshape", ["c", "groups"], ["g"], "groups"),
        node("InstanceNormalization", ["g", "one", "zero"], ["n"], "norm"),
        node("Shape", ["c"], ["s"], "shape"),
        node("Reshape", ["n", "s"], ["b"], "back"),
        node("Mul", ["b", "gn.weight"], ["m"], "scale"),
        node("Add", ["m", "gn.bias"], ["y"], "shift"),
    ]


GROUPED = [
    weight("conv.weight", 4, 3, 3, 3),
    weight("gn.weight", 4, 1, 1),
    weight("gn.bias", 4, 1, 1),
    _tensor("groups", [0, 2, -1], np.int64),
]


@pytest.mark.parametrize("literal", [True, False])
def test_placeholders_of_a_group_normalisation_are_no_parameters(literal: bool, tmp_path: Path) -> None:
    more = [] if literal else [_tensor("one", [1.0, 1.0]), _tensor("zero", [0.0, 0.0])]
    path = save(model(_grouped(literal), [*GROUPED, *more]), tmp_path / "model.onnx")
    assert [*import_network(read(path)).network.parameters] == ["conv.weight", "gn.weight", "gn.bias"]


@pytest.mark.parametrize(
    ("weights_too", "scale", "expected"),
    [
        (False, 1.0, ["conv.weight"]),  # instance normalisation that has no scale
        (False, 1.5, ["conv.weight", "one", "zero"]),
        (True, 1.0, ["conv.weight", "one", "zero"]),  # in this model everything stands in nodes
    ],
)
def test_ones_in_nodes_are_a_scale_where_weights_stand_in_nodes(
    weights_too: bool, scale: float, expected: list[str], tmp_path: Path
) -> None:
    kernel = numpy_helper.to_array(GROUPED[0])
    nodes = [
        *([_constant("conv.weight", kernel)] if weights_too else []),
        _constant("one", [scale] * 4),
        _constant("zero", [0.0] * 4),
        node("Conv", ["x", "conv.weight"], ["c"], "conv"),
        node("InstanceNormalization", ["c", "one", "zero"], ["y"], "norm"),
    ]
    path = save(model(nodes, [] if weights_too else GROUPED[:1]), tmp_path / "model.onnx")
    assert [*import_network(read(path)).network.parameters] == expected


def test_a_split_keeps_the_parts_that_nothing_reads(tmp_path: Path) -> None:
    nodes = [
        node("Conv", ["x", "conv.weight"], ["c"], "conv"),
        node("Split", ["c", "sizes"], ["a", "b"], "split", axis=1),
        node("Tanh", ["a"], ["y"], "tanh"),
    ]
    proto = model(nodes, [GROUPED[0], _tensor("sizes", [3, 1], np.int64)])
    compiled, _ = compile_model(save(proto, tmp_path / "model.onnx"))
    image = np.random.default_rng(0).standard_normal((2, 3, 8, 8)).astype(np.float32)
    expected = session(proto.SerializeToString()).run(None, {"x": image})[0]
    np.testing.assert_allclose(inference(compiled)(image), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("op", "reduction", "places", "warned"),
    [
        ("ScatterND", "add", [[0], [0]], True),
        ("ScatterND", "mul", [[1], [1]], True),
        ("ScatterND", "add", [[0], [1]], False),
        ("ScatterND", "none", [[0], [0]], False),
        ("ScatterElements", "add", [[[[0] * 6] * 6] * 4] * 2, False),
    ],
)
def test_updates_that_onnx_runtime_loses_are_told(
    op: str, reduction: str, places: npt.ArrayLike, warned: bool, tmp_path: Path
) -> None:
    nodes = [
        node("Conv", ["x", "conv.weight"], ["c"], "conv"),
        node(op, ["c", "places", "c"], ["y"], "scatter", reduction=reduction),
    ]
    proto = model(nodes, [GROUPED[0], _tensor("places", places, np.int64)], shape=(2, 3, 8, 8))
    notes = import_network(read(save(proto, tmp_path / "model.onnx"))).notes
    assert any("loses updates in ScatterND 'scatter'" in note for note in notes) == warned


STANDARDISED = [
    node("ReduceMean", ["v", "inner"], ["mean"]),
    node("Sub", ["v", "mean"], ["centred"]),
    node("ReduceL2", ["centred", "inner"], ["length"]),
    node("Div", ["centred", "length"], ["w"]),
    node("Conv", ["x", "w", "bias"], ["y"]),
]
V, G = weight("v", 4, 3, 3, 3), weight("g", 4, 1, 1, 1)
INNER = _tensor("inner", [1, 2, 3], np.int64)

WITHIN: dict[str, tuple[list[onnx.NodeProto], list[onnx.TensorProto], dict[str, str]]] = {
    "standardised": (STANDARDISED, [V, INNER], {"v": "weight"}),
    "direction and length": (
        [
            node("ReduceL2", ["v", "inner"], ["length"]),
            node("Div", ["v", "length"], ["direction"]),
            node("Mul", ["g", "direction"], ["w"]),
            node("Conv", ["x", "w", "bias"], ["y"]),
        ],
        [V, G, INNER],
        {"v": "weight", "g": "normalization"},
    ),
    "sum of two": (
        [node("Add", ["v", "v2"], ["w"]), node("Conv", ["x", "w", "bias"], ["y"])],
        [V, weight("v2", 4, 3, 3, 3)],
        {"v": "weight", "v2": "weight"},
    ),
    "masked": (
        [node("Mul", ["v", "mask"], ["w"]), node("Conv", ["x", "w", "bias"], ["y"])],
        [V, _tensor("mask", np.eye(3)[None, None])],
        {"v": "weight"},
    ),
    "by a length that is known": (
        [node("Div", ["v", "known"], ["w"]), node("Conv", ["x", "w", "bias"], ["y"])],
        [V, _tensor("known", np.full((4, 1, 1, 1), 2.0))],
        {"v": "weight"},
    ),
    "resized": (
        [node("Resize", ["v", "", "scales"], ["w"], mode="linear"), node("Conv", ["x", "w", "bias"], ["y"])],
        [V, _tensor("scales", [1, 1, 2, 2])],
        {"v": "weight"},
    ),
}


@pytest.mark.parametrize("name", WITHIN)
def test_what_a_weight_is_computed_of_is_trained(name: str, tmp_path: Path) -> None:
    """And the exported model computes with it as the source does."""
    nodes, tensors, expected = WITHIN[name]
    proto = model(nodes, [*tensors, weight("bias", 4)])
    path = save(proto, tmp_path / "model.onnx")
    kinds = {p.name: p.kind for p in import_network(read(path)).network.parameters.values()}
    assert kinds == {**expected, "bias": "bias"}
    compiled, _ = compile_model(path, Wishes(loss="mse", optimizer="sgd"))
    image = np.random.default_rng(0).standard_normal((2, 3, 8, 8)).astype(np.float32)
    (y,) = session(proto.SerializeToString()).run(["y"], {"x": image})
    np.testing.assert_allclose(inference(compiled)(image), y, rtol=1e-5, atol=1e-5)
    target = y + 1
    outputs, state = trainer(compiled)(compiled.state, image, target)
    for parameter in expected:  # the slope along the step is what a small step really gives
        step = np.asarray(state[parameter] - compiled.state[parameter])
        slope, losses = -float((step**2).sum()) / compiled.manifest.learning_rate, []
        for sign in (1, -1):
            changed = {**compiled.state, parameter: compiled.state[parameter] + sign * step}
            losses.append(trainer(compiled)(changed, image, target)[0]["loss"])
        assert slope == pytest.approx((losses[0] - losses[1]) / 2, rel=0.02, abs=1e-6)
    assert outputs["loss"] == pytest.approx(1.0)


NO_BATCH: dict[str, tuple[list[int | str], list[onnx.NodeProto], str]] = {
    "an image without a batch": (
        [3, 8, 8],
        [
            node("Unsqueeze", ["x", "front"], ["u"]),
            node("Conv", ["u", "v"], ["c"]),
            node("Flatten", ["c"], ["y"]),
        ],
        r"'y' \[1, 144\] has not a row for each of the 3 examples",
    ),
    "frames of one film": (
        [4, 3, 8, 8],
        [node("Conv", ["x", "v"], ["c"]), node("ReduceMean", ["c", "front"], ["y"])],
        "each of the 4 examples",
    ),
    "a mean over the batch": (
        ["N", 3, 8, 8],
        [node("Conv", ["x", "v"], ["c"]), node("ReduceMean", ["c", "front"], ["y"])],
        "each of the N examples",
    ),
    "examples as columns": (
        ["N", 3, 8, 8],
        [
            *(
                node("Conv", ["x", "v"], ["c"]),
                node("GlobalMaxPool", ["c"], ["g"]),
                node("Flatten", ["g"], ["f"]),
            ),
            node("Transpose", ["f"], ["y"], perm=[1, 0]),
        ],
        r"'y' \[4, N\]",
    ),
    "rows of pixels": (
        ["N", 3, 8, 8],
        [node("Conv", ["x", "v"], ["c"]), node("Reshape", ["c", "rows"], ["y"])],
        r"'y' \[24\*N, 6\]",
    ),
    "a number": (
        ["N", 3, 8, 8],
        [node("Conv", ["x", "v"], ["c"]), node("ReduceMean", ["c"], ["y"], keepdims=0)],
        r"'y' \[\] has not a row",
    ),
}


@pytest.mark.parametrize("name", NO_BATCH)
def test_an_output_without_a_row_for_each_example_is_refused(name: str, tmp_path: Path) -> None:
    shape, nodes, words = NO_BATCH[name]
    tensors = [V, _tensor("front", [0], np.int64), _tensor("rows", [-1, 6], np.int64)]
    used = {read for each in nodes for read in each.input}
    path = save(model(nodes, [t for t in tensors if t.name in used], shape=shape), tmp_path / "model.onnx")
    with pytest.raises(UnsupportedError, match=words):
        compile_model(path)
