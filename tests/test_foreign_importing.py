"""What of a foreign model becomes a parameter, what does not, and what its user is told."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from foreign_models import inference, model, save, session, weight
from onnx import helper, numpy_helper

from cnnc.foreign.importing import import_network
from cnnc.foreign.reading import read
from cnnc.foreign.training import compile_model

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
