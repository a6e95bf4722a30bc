"""Operators of ONNX Runtime's own: what its optimizer saves computes the same in standard ONNX."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from foreign_models import classifier, model, runnable, save, session, weight
from onnx import helper

from cnnc.errors import UnsupportedError
from cnnc.foreign.coverage import coverage
from cnnc.foreign.extensions import EXTENSIONS
from cnnc.foreign.importing import import_network
from cnnc.foreign.reading import read

pytestmark = pytest.mark.usefixtures("in_process")

RUNTIME = "com.microsoft"


def own(op: str, inputs: Sequence[str], outputs: Sequence[str] = ("y",), **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(op, inputs, outputs, f"{op}_{outputs[0]}", domain=RUNTIME, **attributes)


def standard(op: str, *inputs: str, **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(op, inputs, ["y"], op, **attributes)


WEIGHTS = {
    "w": weight("w", 3, 3, 3, 3), "b": weight("b", 3), "m": weight("m", 8, 5), "tall": weight("tall", 5, 8),
    "c": weight("cc", 5), "rows": weight("rows", 5, 8), "scale": weight("scale", 8), "bias": weight("b2", 8),
    "stack": weight("stack", 8, 3, 5),
}  # fmt: skip

ACTIVATIONS: dict[str, dict[str, Any]] = {
    **{name: {} for name in ("Relu", "Tanh", "Sigmoid")},
    "LeakyRelu": {"activation_params": [0.2]},
    "Clip": {"activation_params": [-0.3, 0.4]},
    "HardSigmoid": {"activation_params": [0.3, 0.4]},
}

EXTENDED: dict[str, tuple[int, list[onnx.NodeProto], list[str]]] = {
    "BiasGelu": (13, [own("BiasGelu", ["x", "bias"])], ["Add", "Mul", "Erf", "Mul", "Add", "Mul"]),
    "FastGelu": (13, [own("FastGelu", ["x"])], []),
    "FastGelu and bias": (13, [own("FastGelu", ["x", "bias"])], []),
    "Gelu": (13, [own("Gelu", ["x"])], ["Mul", "Erf", "Mul", "Add", "Mul"]),
    "QuickGelu": (18, [own("QuickGelu", ["x"], alpha=1.5)], ["Mul", "Sigmoid", "Mul"]),
    "QuickGelu as it is": (18, [own("QuickGelu", ["x"])], ["Mul", "Sigmoid", "Mul"]),
    "Trilu": (13, [own("Trilu", ["x"], upper=0)], ["Trilu"]),
    **{
        f"FusedConv {activation}": (
            13,
            [own("FusedConv", ["x", "w", "b"], activation=activation, pads=[1, 1, 0, 0], **numbers)],
            ["Conv", activation],
        )
        for activation, numbers in ACTIVATIONS.items()
    },
    "FusedConv without bias": (13, [own("FusedConv", ["x", "w"], activation="Relu")], ["Conv", "Relu"]),
    "FusedConv and more": (
        13,
        [
            own("FusedConv", ["x", "w", "b", "x"], activation="Relu", pads=[1] * 4),
        ],
        ["Conv", "Add", "Relu"],
    ),
    "FusedGemm": (
        13,
        [
            helper.make_node("Flatten", ["x"], ["f"], axis=3),
            own(
                *("FusedGemm", ["f", "m", "c"]),
                activation="LeakyRelu", activation_alpha=0.3, alpha=0.5, beta=2.0,
            ),
        ],
        ["Flatten", "Gemm", "LeakyRelu"],
    ),
    "FusedMatMul": (13, [own("FusedMatMul", ["x", "m"], alpha=0.3)], ["MatMul", "Mul"]),
    "FusedMatMul of transposed": (
        13,
        [own("FusedMatMul", ["x", "tall"], transA=1, transB=1)],
        ["Transpose", "Transpose", "MatMul"],
    ),
    "FusedMatMul of turned batches": (
        13,
        [
            helper.make_node("Squeeze", ["x", "front"], ["s"]),
            own("FusedMatMul", ["s", "stack"], transBatchA=1, transA=1, transBatchB=1),
        ],
        ["Squeeze", "Transpose", "Transpose", "MatMul"],
    ),
    "LayerNormalization 13": (
        13,
        [standard("LayerNormalization", "x", "scale", "bias", axis=-1, epsilon=0.1)],
        ["LayerNormalization"],
    ),
    "GroupNormalization": (18, [standard("GroupNormalization", "x", "b", "b", num_groups=3)], []),
    "SimplifiedLayerNormalization": (
        13,
        [standard("SimplifiedLayerNormalization", "x", "scale", axis=-1, epsilon=0.1)],
        [],
    ),
    "SkipLayerNormalization": (
        13,
        [
            helper.make_node("Squeeze", ["x", "front"], ["s"]),
            own("SkipLayerNormalization", ["s", "s", "scale", "bias", "bias"], epsilon=0.1),
        ],
        ["Squeeze", "Sum", "LayerNormalization"],
    ),
    "SkipLayerNormalization and its sum": (
        13,
        [
            helper.make_node("Squeeze", ["x", "front"], ["s"]),
            own("SkipLayerNormalization", ["s", "s", "scale"], ["n", "", "", "t"], epsilon=0.1),
            standard("Add", "n", "t"),
        ],
        ["Squeeze", "Sum", "LayerNormalization", "Add"],
    ),
    "SkipSimplifiedLayerNormalization": (
        13,
        [
            helper.make_node("Squeeze", ["x", "front"], ["s"]),
            own("SkipSimplifiedLayerNormalization", ["s", "s", "scale", "bias"], epsilon=0.1),
        ],
        [],
    ),
}  # fmt: skip
"""Opset, nodes, and what becomes of them, where it is short."""


def _source(name: str) -> onnx.ModelProto:
    opset, nodes, _ = EXTENDED[name]
    tensors = {**WEIGHTS, "front": onnx.numpy_helper.from_array(np.array([0]), "front")}
    used = {read for node in nodes for read in node.input}
    shape = (1, 3, 8, 8) if "front" in used else ("N", 3, 8, 8)
    if "of turned" in name:
        shape = (1, 8, 3, 8)
    constants = [tensor for key, tensor in tensors.items() if key in used]
    for tensor, key in zip(constants, (key for key in tensors if key in used), strict=True):
        tensor.name = key
    return model(nodes, constants, shape=shape, opset=opset, domains=[RUNTIME])


@pytest.mark.parametrize("name", EXTENDED)
def test_extensions_in_standard_onnx(name: str, tmp_path: Path) -> None:
    proto = _source(name)
    dims = [d.dim_value or 2 for d in proto.graph.input[0].type.tensor_type.shape.dim]
    image = np.random.default_rng(0).standard_normal(dims).astype(np.float32)
    foreign = read(save(proto, tmp_path / "own.onnx"))
    assert not foreign.problems, foreign.problems
    assert not foreign.unknown
    if EXTENDED[name][2]:
        assert [node.op_type for node in foreign.graph.node] == EXTENDED[name][2]
    (expected,) = session(proto.SerializeToString()).run(None, {"x": image})
    (found,) = session(runnable(foreign)).run(None, {"x": image})
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_every_extension_has_a_row() -> None:
    rows = {(node.domain, node.op_type) for _, nodes, _ in EXTENDED.values() for node in nodes}
    assert not EXTENSIONS.keys() - rows


def test_in_functions_and_branches(tmp_path: Path) -> None:
    imports = [helper.make_opsetid("", 18), helper.make_opsetid(RUNTIME, 1)]
    twice = [own("QuickGelu", ["a"], ["b"]), own("Gelu", ["b"], ["c"])]
    function = helper.make_function("local", "Twice", ["a"], ["c"], twice, imports)
    branch = [
        helper.make_graph(
            [own("QuickGelu", ["x"], [name])], name, [], [helper.make_tensor_value_info(name, 1, None)]
        )
        for name in ("p", "q")
    ]
    nodes = [
        helper.make_node("If", ["always"], ["i"], then_branch=branch[0], else_branch=branch[1]),
        helper.make_node("Twice", ["i"], ["y"], domain="local"),
    ]
    always = onnx.numpy_helper.from_array(np.array(True), "always")
    proto = model(nodes, [always], functions=[function], domains=["local", RUNTIME])
    foreign = read(save(proto, tmp_path / "nested.onnx"))
    assert not foreign.unknown
    assert not foreign.problems
    image = np.random.default_rng(0).standard_normal((2, 3, 8, 8)).astype(np.float32)
    (expected,) = session(proto.SerializeToString()).run(None, {"x": image})
    np.testing.assert_allclose(
        session(runnable(foreign)).run(None, {"x": image})[0], expected, rtol=1e-5, atol=1e-6
    )


def _optimised(path: Path, level: Any) -> Path:
    """What ONNX Runtime saves of a classifier."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level, options.log_severity_level = level, 3
    options.optimized_model_filepath = str(path.with_name("saved.onnx"))
    source = classifier()
    for value in source.graph.output:
        value.type.tensor_type.elem_type = 1
    onnxruntime.InferenceSession(save(source, path), options, providers=["CPUExecutionProvider"])
    return path.with_name("saved.onnx")


def test_a_model_that_onnx_runtime_saved_can_be_trained(tmp_path: Path) -> None:
    saved = _optimised(tmp_path / "model.onnx", onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED)
    assert any(node.op_type == "FusedConv" for node in onnx.load(saved).graph.node)
    report = coverage(saved)
    assert report.ok, report
    assert import_network(read(saved)).network.parameters.keys() == {
        "conv.weight", "conv.bias", "fc.weight", "fc.bias",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("node", "words"),
    [
        (
            helper.make_node("Conv", ["x", "w"], ["y"], "c", domain="com.microsoft.nchwc"),
            "ORT_ENABLE_EXTENDED",
        ),
        (own("QLinearAdd", ["x", "w"]), "quantised"),
        (own("Attention", ["x", "w"]), "of the domain 'com.microsoft' is no operator of ONNX"),
    ],
)
def test_what_can_not_be_read_is_told(node: onnx.NodeProto, words: str, tmp_path: Path) -> None:
    proto = model([node], [weight("w", 3, 3, 3, 3)], domains=[node.domain])
    (row,) = coverage(save(proto, tmp_path / "own.onnx")).operators
    assert words in row.advice
    with pytest.raises(UnsupportedError, match=r"can't be trained"):
        import_network(read(tmp_path / "own.onnx"))


@pytest.mark.parametrize(
    ("node", "words"),
    [
        (own("FusedConv", ["x"]), "lacks one of its 2 inputs"),
        (own("FusedConv", ["x", "w"], activation="Cubic"), "'Cubic'"),
        (own("SkipLayerNormalization", ["x", "x", "w"], ["n", "y"]), "hands out its statistics"),
    ],
)
def test_a_use_that_is_unknown_is_told(node: onnx.NodeProto, words: str, tmp_path: Path) -> None:
    proto = model([node], [weight("w", 3, 3, 3, 3)], domains=[RUNTIME])
    (problem,) = read(save(proto, tmp_path / "own.onnx")).problems
    assert words in problem[2]
