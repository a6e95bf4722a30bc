"""Foreign models: which tensors are parameters, fine-tuning, the report, the command line."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from command_line import call, done
from foreign_models import classifier, inference, model, save, session, trainer, weight
from onnx import TensorProto, helper, numpy_helper

from cnnc.bundle import Bundle, Preprocessing
from cnnc.errors import ModelError, UsageError
from cnnc.foreign.coverage import coverage
from cnnc.foreign.importing import import_network
from cnnc.foreign.reading import read
from cnnc.foreign.training import Wishes, compile_model

pytestmark = pytest.mark.usefixtures("in_process")


def _node(op: str, inputs: list[str], outputs: list[str], **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(op, inputs, outputs, outputs[0], **attributes)


def _network() -> onnx.ModelProto:
    """Batch normalisation in training form, dropout, a shared convolution, a scale, and a softmax."""
    nodes = [
        _node("Constant", [], ["half"], value_float=0.5),
        _node("Conv", ["x", "stem.weight"], ["a"], pads=[1, 1, 1, 1]),
        _node("BatchNormalization", ["a", "bn.weight", "bn.bias", "bn.mean", "bn.var"], ["b", "rm", "rv"],
              training_mode=1),
        _node("Conv", ["b", "shared"], ["c"], pads=[1, 1, 1, 1]),
        _node("Relu", ["c"], ["d"]),
        _node("Conv", ["d", "shared"], ["e"], pads=[1, 1, 1, 1]),
        _node("Mul", ["e", "scale"], ["f"]),
        _node("Mul", ["f", "half"], ["f2"]),
        _node("GlobalAveragePool", ["f2"], ["g"]),
        _node("Flatten", ["g"], ["h"]),
        _node("Dropout", ["h", "half"], ["i"]),
        _node("Identity", ["i"], ["j"]),
        _node("MatMul", ["j", "head.weight"], ["k"]),
        _node("Add", ["k", "head.bias"], ["logits"]),
        _node("Softmax", ["logits"], ["y"], axis=-1),
    ]  # fmt: skip
    tensors = [
        weight("stem.weight", 4, 3, 3, 3), weight("shared", 4, 4, 3, 3), weight("scale", 4, 1, 1),
        weight("head.weight", 4, 5), weight("head.bias", 5), weight("bn.weight", 4), weight("bn.bias", 4),
        weight("bn.mean", 4), numpy_helper.from_array(np.full(4, 2.0, np.float32), "bn.var"),
    ]  # fmt: skip
    return model(nodes, tensors)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return save(_network(), tmp_path / "network.onnx")


def test_parameters_and_their_kinds(path: Path) -> None:
    imported = import_network(read(path))
    kinds = {name: parameter.kind for name, parameter in imported.network.parameters.items()}
    assert kinds == {
        "stem.weight": "weight", "bn.weight": "normalization", "bn.bias": "normalization",
        "bn.mean": "statistic", "bn.var": "statistic", "shared": "weight", "scale": "normalization",
        "head.weight": "weight", "head.bias": "bias",
    }  # fmt: skip
    assert imported.activation == "softmax"
    operators = Counter(node.op_type for node in imported.network.graph)
    assert operators["Softmax"] == operators["Identity"] == 0
    assert operators["BatchNormalization"] == operators["Dropout"] == 1


def _inference_form() -> onnx.ModelProto:
    proto = _network()
    norm = proto.graph.node[2]
    del norm.attribute[:]
    del norm.output[1:]
    return proto


def test_inference_is_the_source(path: Path, tmp_path: Path) -> None:
    compiled, notes = compile_model(path)
    image = np.random.default_rng(0).standard_normal((3, 3, 8, 8)).astype(np.float32)
    expected = session(_inference_form().SerializeToString()).run(None, {"x": image})[0]
    np.testing.assert_allclose(inference(compiled)(image), expected, rtol=1e-5)
    assert any("Softmax" in note for note in notes)


def _batch() -> tuple[Any, Any]:
    image = np.random.default_rng(0).standard_normal((4, 3, 8, 8)).astype(np.float32)
    return image, np.array([0, 1, 2, 3])


def test_what_is_frozen_stays_and_costs_nothing(path: Path) -> None:
    wishes = Wishes(train="head.*|scale", freeze="scale", freeze_batchnorm=True, optimizer="adam")
    compiled, notes = compile_model(path, wishes)
    assert "2 of 7 parameters are trained." in notes
    outputs, after = trainer(compiled)(compiled.state, *_batch())
    assert np.isfinite(outputs["loss"])
    for entry in compiled.manifest.entries("parameter", "buffer"):
        same = np.array_equal(after[entry.name], compiled.state[entry.name])
        assert same == (not entry.name.startswith("head.")), entry.name
    operators = {f.op for f in compiled.manifest.functions}
    assert not any(op.startswith(("ConvGrad", "BatchNormalization")) for op in operators)


def test_statistics_move_unless_frozen(path: Path) -> None:
    compiled, _ = compile_model(path, Wishes(train="head.*"))
    _, after = trainer(compiled)(compiled.state, *_batch())
    assert not np.array_equal(after["bn.mean"], compiled.state["bn.mean"])


@pytest.mark.parametrize("form", ["MatMul", "Gemm", "Conv"])
def test_a_new_head(form: str, tmp_path: Path) -> None:
    if form == "MatMul":
        proto, names = _network(), ("head.weight", "head.bias")
    elif form == "Gemm":
        proto, names = classifier(), ("fc.weight", "fc.bias")
    else:
        nodes = [
            _node("Conv", ["x", "stem"], ["a"]),
            _node("Conv", ["a", "w", "b"], ["c"]),
            _node("GlobalAveragePool", ["c"], ["g"]),
            _node("Reshape", ["g", "sizes"], ["y"]),
        ]
        sizes = numpy_helper.from_array(np.array([0, 5]), "sizes")
        stem = weight("stem", 4, 3, 3, 3)
        proto, names = model(nodes, [stem, weight("w", 5, 4, 1, 1), weight("b", 5), sizes]), ("w", "b")
    compiled, notes = compile_model(
        save(proto, tmp_path / "m.onnx"), Wishes(classes=3, train="|".join(names))
    )
    assert compiled.manifest.output.shape == ("N", 3)
    weight_, bias = (next(e for e in compiled.manifest.state if e.name == name) for name in names)
    assert weight_.initial == {"kind": "uniform", "bound": 0.5}
    assert bias.initial == {"kind": "constant", "value": 0.0}
    assert any("3 outputs instead of 5" in note for note in notes)
    image, _ = _batch()
    outputs, _ = trainer(compiled)(compiled.state, image, np.array([0, 1, 2, 0]))
    assert np.isfinite(outputs["loss"])


def test_a_new_head_beside_axes_of_its_size(tmp_path: Path) -> None:
    """A 1×1 convolution to 8 classes of 8×8 pixels, resized: only the classes become others."""
    nodes = [
        _node("Conv", ["x", "stem"], ["a"], pads=[1, 1, 1, 1]),
        _node("Conv", ["a", "w", "b"], ["c"]),
        _node("Resize", ["c", "", "scales"], ["y"], mode="linear"),
    ]
    scales = numpy_helper.from_array(np.array([1, 1, 2, 2], np.float32), "scales")
    tensors = [weight("stem", 4, 3, 3, 3), weight("w", 8, 4, 1, 1), weight("b", 8), scales]
    path = save(model(nodes, tensors), tmp_path / "m.onnx")
    compiled, _ = compile_model(path, Wishes(classes=3, loss="pixel_cross_entropy"))
    assert compiled.manifest.output.shape == ("N", 3, 16, 16)


def test_a_new_head_whose_bias_is_one_number(tmp_path: Path) -> None:
    proto = classifier()
    del proto.graph.initializer[-1]
    proto.graph.initializer.append(weight("fc.bias", 1))
    compiled, _ = compile_model(save(proto, tmp_path / "m.onnx"), Wishes(classes=3))
    assert compiled.manifest.output.shape == ("N", 3)
    assert compiled.state["fc.bias"].shape == (1,)


def test_a_head_that_shares_its_weight(tmp_path: Path) -> None:
    nodes = [_node("Conv", ["x", "w"], ["a"]), _node("Conv", ["a", "w"], ["y"])]
    path = save(model(nodes, [weight("w", 3, 3, 1, 1)]), tmp_path / "m.onnx")
    with pytest.raises(ModelError, match="shares its weight 'w'"):
        compile_model(path, Wishes(classes=5))


def test_a_head_that_is_none(tmp_path: Path) -> None:
    proto = model([_node("Conv", ["x", "w"], ["y"])], [weight("w", 4, 3, 3, 3)])
    with pytest.raises(ModelError, match="its classes"):
        compile_model(save(proto, tmp_path / "m.onnx"), Wishes(classes=3))


def test_weights_of_another_model(path: Path, tmp_path: Path) -> None:
    other = _network()
    for tensor in other.graph.initializer:
        values = numpy_helper.to_array(tensor) + 1
        if tensor.name == "head.bias":
            values = values[:4]
        if tensor.name == "scale":
            tensor.name = "gamma"
        tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    other.graph.node[6].input[1] = "gamma"
    other.graph.node[13].input[1] = "shorter"
    other.graph.initializer.append(weight("shorter", 5))
    source = save(other, tmp_path / "other.onnx")
    plain, _ = compile_model(path)
    compiled, notes = compile_model(path, Wishes(init_from=str(source)))
    np.testing.assert_array_equal(compiled.state["shared"], plain.state["shared"] + 1)
    np.testing.assert_array_equal(compiled.state["scale"], plain.state["scale"])
    assert any(note.startswith("7 of 9 parameters begin as in") for note in notes), notes
    assert any("scale" in note and "not in other.onnx" in note for note in notes)
    unlike = save(model([_node("Neg", ["x"], ["y"])]), tmp_path / "unlike.onnx")
    with pytest.raises(ModelError, match=r"unlike\.onnx: no tensor"):
        compile_model(path, Wishes(init_from=str(unlike)))


LOSSES: dict[str, tuple[list[tuple[str, dict[str, Any]]], str, str]] = {
    "softmax": ([("Softmax", {})], "SoftmaxCrossEntropy", "softmax"),
    "log softmax": ([("LogSoftmax", {})], "SoftmaxCrossEntropy", "softmax"),
    "sigmoid": ([("Sigmoid", {})], "BinaryCrossEntropy", "sigmoid"),
    "none": ([], "SoftmaxCrossEntropy", "softmax"),
    "a cast that changes nothing": (
        [("Sigmoid", {}), ("Cast", {"to": TensorProto.FLOAT})],
        "BinaryCrossEntropy",
        "sigmoid",
    ),
    "one number an example": (
        [("ReduceMean", {"axes": [1], "keepdims": 0}), ("Sigmoid", {})],
        "BinaryCrossEntropy",
        "sigmoid",
    ),
    "a number": ([("ReduceMean", {"axes": [-1], "keepdims": 0})], "MeanSquaredError", "identity"),
}


@pytest.mark.parametrize("case", LOSSES)
def test_the_loss_follows_the_last_operator(case: str, tmp_path: Path) -> None:
    operators, loss, activation = LOSSES[case]
    proto = classifier(opset=13)
    for operator, attributes in operators:
        given = proto.graph.node[-1]
        given.name = given.output[0] = f"value{len(proto.graph.node)}"
        proto.graph.node.append(_node(operator, [given.output[0]], ["y"], **attributes))
    compiled, notes = compile_model(save(proto, tmp_path / "m.onnx"))
    assert compiled.manifest.loss["name"] == loss
    assert compiled.manifest.activation == activation
    assert any("say another with --loss" in note for note in notes)
    image, _ = _batch()
    (expected,) = session(proto.SerializeToString()).run(["y"], {"x": image})
    found = inference(compiled)(image)
    if case == "log softmax":
        assert any("probabilities, not their logarithms" in note for note in notes)
        expected = np.exp(expected)
    if case != "none":  # the exported model gives what its loss compares
        np.testing.assert_allclose(found, expected.reshape(found.shape), rtol=1e-5)


def test_the_loss_of_classes_of_pixels(tmp_path: Path) -> None:
    nodes = [_node("Conv", ["x", "w"], ["logits"]), _node("Softmax", ["logits"], ["y"], axis=1)]
    compiled, _ = compile_model(save(model(nodes, [weight("w", 5, 3, 1, 1)]), tmp_path / "m.onnx"))
    assert compiled.manifest.loss["name"] == "PixelCrossEntropy"
    assert compiled.manifest.activation == "softmax"


def test_a_loss_on_values_keeps_the_activation(path: Path) -> None:
    compiled, _ = compile_model(path, Wishes(loss="mse"))
    assert compiled.manifest.activation == "identity"
    image, _ = _batch()
    probabilities = inference(compiled)(image)
    np.testing.assert_allclose(probabilities.sum(1), 1.0, rtol=1e-5)


def test_channels_last_input(tmp_path: Path) -> None:
    proto = classifier(shape=("N", 8, 8, 3))
    proto.graph.node[0].input[0] = "t"
    proto.graph.node.insert(0, _node("Transpose", ["x"], ["t"], perm=[0, 3, 1, 2]))
    compiled, notes = compile_model(save(proto, tmp_path / "m.onnx"))
    assert compiled.manifest.input.shape == ("N", 3, 8, 8)
    assert any("channels first" in note for note in notes)


def test_preprocessing_and_seed(path: Path) -> None:
    wishes = Wishes(scale=1.0, mean=(0.1, 0.2, 0.3), std=(1.0, 2.0, 3.0), classes=3)
    one, _ = compile_model(path, wishes, seed=1)
    two, _ = compile_model(path, wishes, seed=2)
    assert one.manifest.preprocessing == Preprocessing(1.0, (0.1, 0.2, 0.3), (1.0, 2.0, 3.0))
    assert not np.array_equal(one.state["head.weight"], two.state["head.weight"])
    assert np.array_equal(one.state["shared"], two.state["shared"])


def _partly_missing() -> onnx.ModelProto:
    """Det has no gradient; the first stands before all parameters, the second after one."""
    nodes = [
        _node("Floor", ["x"], ["a"]),
        _node("Conv", ["a", "w"], ["b"]),
        _node("Conv", ["b", "w2"], ["c"]),
        _node("Det", ["c"], ["y"]),
    ]
    return model(nodes, [weight("w", 4, 3, 1, 1), weight("w2", 4, 4, 1, 1)])


def test_the_report_tells_everything_at_once(tmp_path: Path) -> None:
    source = save(_partly_missing(), tmp_path / "m.onnx")
    report = coverage(source)
    rows = {row.operator: row for row in report.operators}
    assert not report.ok
    assert (rows["Floor"].on_path, rows["Conv"].on_path, rows["Det"].on_path) == (0, 2, 1)
    assert rows["Conv"].gradient
    assert not rows["Det"].gradient
    assert "Det" in rows["Det"].advice
    with pytest.raises(ModelError, match="Det"):
        compile_model(source)


def test_the_report_on_unknown_operators(tmp_path: Path) -> None:
    nodes = [
        _node("Convolve", ["x"], ["a"]),
        helper.make_node("Attention", ["a", "w"], ["b"], "fused", domain="com.microsoft"),
        _node("Relu", ["b"], ["y"]),
    ]
    source = save(model(nodes, [weight("w", 4, 3, 1, 1)], domains=["com.microsoft"]), tmp_path / "m.onnx")
    report = coverage(source)
    assert {row.operator for row in report.operators if row.advice} == {"Convolve", "com.microsoft.Attention"}


def test_cnnc_check(path: Path, tmp_path: Path) -> None:
    result = done("check", path)
    assert "BatchNormalization" in result.out
    record = json.loads(done("check", path, "--json").out)
    assert record["ok"]
    assert record["parameters"] == 7
    missing = save(_partly_missing(), tmp_path / "missing.onnx")
    refused = call("check", missing, "--json")
    assert refused.status == 1
    assert not json.loads(refused.out)["ok"]
    assert "no gradient for Det" in refused.err
    assert call("check", tmp_path / "absent.onnx").status == 1


def test_cnnc_build(path: Path, tmp_path: Path) -> None:
    bundle = tmp_path / "out.bundle"
    options = [
        "--classes",
        3,
        "--train",
        "head.*",
        "--optimizer",
        "adamw",
        "--lr",
        0.01,
        "--mean",
        "0.5,0.5,0.5",
    ]
    result = done("build", path, "-o", bundle, *options, "--json")
    record = json.loads(result.out)
    assert record["name"] == "network"
    assert "2 of 7 parameters are trained." in record["notes"]
    manifest = Bundle.open(bundle).manifest
    assert manifest.learning_rate == 0.01
    assert [entry.name for entry in manifest.state if entry.offset is not None] == [
        "head.weight",
        "head.bias",
    ]
    assert call("build", path, "--mean", "a,b", "-o", tmp_path / "no.bundle").status == 2
    assert call("build", "digits", "--lr", 0.1, "-o", tmp_path / "no.bundle").status == 2
    assert call("build", path, "--set", "a=1", "-o", tmp_path / "no.bundle").status == 2
    assert not (tmp_path / "no.bundle").exists()


def test_a_state_name_of_the_optimizer(tmp_path: Path) -> None:
    proto = classifier()
    for tensor in proto.graph.initializer:
        if tensor.name == "conv.bias":
            tensor.name = "conv.weight/exp_avg"
    proto.graph.node[0].input[2] = "conv.weight/exp_avg"
    path = save(proto, tmp_path / "m.onnx")
    with pytest.raises(ModelError, match=r"conv\.weight/exp_avg"):
        compile_model(path)
    compile_model(path, Wishes(optimizer="sgd"))


def test_options_are_checked_before_the_model_is_read(tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        compile_model(tmp_path / "absent.onnx", Wishes(optimizer="none"))
