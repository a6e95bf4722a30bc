"""What is frozen costs nothing: no gradient of it is computed, and nothing it computes is kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from foreign_models import model, save, trainer, weight
from onnx import helper, numpy_helper

from cnnc.bundle import NEXT
from cnnc.compiler import Compiled
from cnnc.foreign.training import Wishes, compile_model

IMAGES = np.random.default_rng(0).standard_normal((4, 3, 8, 8)).astype(np.float32)
LABELS = np.array([0, 1, 2, 3])


def _network() -> onnx.ModelProto:
    """Four residual blocks of a convolution, batch normalisation and a ReLU, and a dense layer."""
    nodes, tensors = [_conv(["x", "stem"], "b0")], [weight("stem", 4, 3, 3, 3)]
    for i in range(1, 5):
        norm = [f"bn{i}.{field}" for field in ("weight", "bias", "mean", "var")]
        nodes += [
            _conv([f"b{i - 1}", f"conv{i}.weight"], f"c{i}"),
            helper.make_node("BatchNormalization", [f"c{i}", *norm], [f"n{i}"], f"n{i}"),
            helper.make_node("Add", [f"n{i}", f"b{i - 1}"], [f"s{i}"], f"s{i}"),
            helper.make_node("Relu", [f"s{i}"], [f"b{i}"], f"b{i}"),
        ]
        tensors += [weight(f"conv{i}.weight", 4, 4, 3, 3), *(weight(name, 4) for name in norm[:3])]
        tensors.append(numpy_helper.from_array(np.full(4, 2, np.float32), norm[3]))
    nodes += [
        helper.make_node("GlobalAveragePool", ["b4"], ["g"], "pool"),
        helper.make_node("Flatten", ["g"], ["f"], "flatten"),
        helper.make_node("Gemm", ["f", "fc.weight", "fc.bias"], ["y"], "fc", transB=1),
    ]
    return model(nodes, [*tensors, weight("fc.weight", 5, 4), weight("fc.bias", 5)])


def _conv(inputs: list[str], output: str) -> onnx.NodeProto:
    return helper.make_node("Conv", inputs, [output], output, pads=[1, 1, 1, 1])


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return save(_network(), tmp_path / "network.onnx")


def _kept(compiled: Compiled) -> tuple[set[str], set[str]]:
    """What backward nodes read of the forward pass, and of the parameters."""
    graph = onnx.load_from_string(compiled.graphs["train.onnx"]).graph
    backward = [node for node in graph.node if node.name.startswith("grad/")]
    forward = {name for node in graph.node for name in node.output if not node.name.startswith("grad/")}
    forward -= {name for node in graph.node if node.op_type == "Constant" for name in node.output}
    read = {name for node in backward for name in node.input}
    return read & forward, read & {entry.name for entry in compiled.manifest.entries("parameter", "buffer")}


def _layers(values: set[str]) -> set[str]:
    """The blocks that values belong to, by the digit in their names."""
    own = [name for name in values if not name.startswith("loss/")]
    return {digit for name in own for digit in name if digit.isdigit()}


@pytest.mark.parametrize("wishes", [{"freeze": "stem|(conv|bn)[12].*"}, {"train": "(conv|bn)[34].*|fc.*"}])
def test_a_frozen_beginning(path: Path, wishes: dict[str, Any]) -> None:
    """Only the blocks from the first trained one on are kept, and what goes into it."""
    values, parameters = _kept(compile_model(path, Wishes(**wishes, freeze_batchnorm=True))[0])
    assert _layers(values) <= {"2", "3", "4"}
    assert {name for name in values if "2" in name} <= {"b2"}
    assert _layers(parameters) <= {"3", "4"}
    everything, _ = _kept(compile_model(path, Wishes(freeze_batchnorm=True))[0])
    assert _layers(everything) >= {"1", "2", "3", "4"}


def test_adapters_in_the_last_block(path: Path) -> None:
    values, _ = _kept(compile_model(path, Wishes(lora="conv4.*", lora_rank=1, freeze_batchnorm=True))[0])
    assert _layers(values) <= {"3", "4"}
    assert {name for name in values if "3" in name} <= {"b3"}


def test_only_the_last_layer(path: Path) -> None:
    """Its input is all that is kept, though batch normalisation goes on counting."""
    compiled, _ = compile_model(path, Wishes(train="fc.*"))
    values, parameters = _kept(compiled)
    assert not _layers(values - {"f"})
    assert not parameters
    _, after = trainer(compiled)(compiled.state, IMAGES, LABELS)
    moved = {name for name in after if not np.array_equal(after[name], compiled.state[name])}
    assert {f"bn{i}.{field}" for i in range(1, 5) for field in ("mean", "var")} < moved
    assert "conv1.weight" not in moved


def test_a_frozen_layer_in_between(path: Path) -> None:
    """The gradient passes through it, and none of its own is computed."""
    compiled, _ = compile_model(path, Wishes(freeze="conv3.*", freeze_batchnorm=True))
    graph = onnx.load_from_string(compiled.graphs["train.onnx"]).graph
    found = [{item.key: item.value for item in node.metadata_props} for node in graph.node]
    of = {(item.get("cnnc.forward"), item.get("cnnc.wrt")) for item in found}
    assert {("c3", "b2"), ("c2", "conv2.weight"), ("c4", "conv4.weight")} < of
    assert ("c3", "conv3.weight") not in of


def test_frozen_statistics_stay_and_scales_are_trained(path: Path) -> None:
    """In both forms of the step."""
    compiled, _ = compile_model(path, Wishes(freeze_batchnorm=True, optimizer="sgd"))
    outputs, after = trainer(compiled)(compiled.state, IMAGES, LABELS)
    for i in range(1, 5):
        for field, moves in (("mean", False), ("var", False), ("weight", True), ("bias", True)):
            name = f"bn{i}.{field}"
            assert np.array_equal(after[name], compiled.state[name]) != moves, name
    assert np.isfinite(outputs["loss"])
    assert all(NEXT + entry.name in outputs for entry in compiled.manifest.state)
