"""Foreign models with several outputs: auxiliary classifiers, several tasks, what each is compared with."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from command_line import call, done
from foreign_models import model, save, session, weight
from onnx import TensorProto, helper

from cnnc.bundle import NEXT, Bundle
from cnnc.compiler import Compiled
from cnnc.errors import ModelError, UnsupportedError, UsageError
from cnnc.foreign.training import Wishes, compile_model

RNG = np.random.default_rng(0)
IMAGES = RNG.standard_normal((6, 3, 8, 8)).astype(np.float32)
LABELS = RNG.integers(0, 5, 6)
DEPTH = RNG.standard_normal((6, 2)).astype(np.float32)
CE = "softmax_cross_entropy"
WISHES: dict[str, Any] = {
    "loss": (f"main={CE}", f"aux={CE}:0.3", "depth=mse:0.5"),
    "same_target": ("aux=main",),
    "optimizer": "sgd",
    "lr": 0.05,
}


def _node(op: str, inputs: list[str], output: str, **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(op, inputs, [output], output, **attributes)


def network() -> onnx.ModelProto:
    """One body; a class by softmax, an auxiliary class early in the body, and a pair of numbers."""
    nodes = [
        _node("Conv", ["x", "stem.weight", "stem.bias"], "a", pads=[1, 1, 1, 1]),
        _node("Relu", ["a"], "b"),
        _node("GlobalAveragePool", ["b"], "pooled"),
        _node("Flatten", ["pooled"], "flat"),
        _node("Gemm", ["flat", "aux.weight", "aux.bias"], "aux", transB=1),
        _node("Conv", ["b", "deep.weight"], "c"),
        _node("Relu", ["c"], "d"),
        _node("Flatten", ["d"], "e"),
        _node("Gemm", ["e", "main.weight", "main.bias"], "logits", transB=1),
        _node("Softmax", ["logits"], "main"),
        _node("Gemm", ["e", "depth.weight"], "depth"),
    ]
    tensors = [
        weight("stem.weight", 4, 3, 3, 3), weight("stem.bias", 4), weight("aux.weight", 5, 4),
        weight("aux.bias", 5), weight("deep.weight", 3, 4, 3, 3), weight("main.weight", 5, 108),
        weight("main.bias", 5), weight("depth.weight", 108, 2),
    ]  # fmt: skip
    made = model(nodes, tensors, output="main")
    for name in ("aux", "depth"):
        made.graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, None))
    return made


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return save(network(), tmp_path / "network.onnx")


def run(compiled: Compiled, name: str, feeds: dict[str, Any]) -> dict[str, Any]:
    made = session(compiled.graphs[name])
    fed = {value.name: feeds[value.name] for value in made.get_inputs()}
    return dict(zip([o.name for o in made.get_outputs()], made.run(None, fed), strict=True))


def test_every_output_is_the_sources(path: Path) -> None:
    compiled, notes = compile_model(path, Wishes(**WISHES))
    manifest = compiled.manifest
    assert [(h.name, h.activation) for h in manifest.heads] == [
        ("main", "softmax"), ("aux", "softmax"), ("depth", "identity"),
    ]  # fmt: skip
    assert [(spec.name, spec.array) for spec in manifest.targets] == [
        ("label/main", "y_main"), ("target/depth", "y_depth"),
    ]  # fmt: skip
    assert {"main_accuracy", "aux_accuracy"} < {metric.name for metric in manifest.metrics}
    assert any("its loss 'aux' includes" in note for note in notes)
    main, aux, depth = session(path.read_bytes()).run(["main", "aux", "depth"], {"x": IMAGES})
    ours = run(compiled, "infer.onnx", {"x": IMAGES})
    np.testing.assert_allclose(ours["probabilities/main"], main, rtol=1e-5)
    powers = np.exp(aux)
    np.testing.assert_allclose(
        ours["probabilities/aux"], powers / powers.sum(axis=1, keepdims=True), rtol=1e-5
    )
    np.testing.assert_allclose(ours["output/depth"], depth, rtol=1e-4, atol=1e-6)


@pytest.mark.oracle
def test_steps_follow_pytorch(path: Path) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is the oracle of whole steps (extra [oracle])")
    f = torch.nn.functional
    compiled, _ = compile_model(path, Wishes(**WISHES))
    entries = compiled.manifest.entries("parameter")
    p = {e.name: torch.tensor(compiled.state[e.name].astype(np.float64), requires_grad=True) for e in entries}
    optimizer = torch.optim.SGD(p.values(), 0.05)
    feeds = {"x": IMAGES, "label/main": LABELS, "target/depth": DEPTH, "lr_scale": np.array(1.0, np.float32)}
    state, x, labels = dict(compiled.state), torch.tensor(IMAGES.astype(np.float64)), torch.tensor(LABELS)
    for _ in range(10):
        outputs = run(compiled, "train.onnx", feeds | state)
        state = {n.removeprefix(NEXT): v for n, v in outputs.items() if n.startswith(NEXT)}
        body = f.conv2d(x, p["stem.weight"], p["stem.bias"], padding=1).relu()
        aux = f.linear(body.mean((2, 3)), p["aux.weight"], p["aux.bias"])
        flat = f.conv2d(body, p["deep.weight"]).relu().flatten(1)
        main = f.linear(flat, p["main.weight"], p["main.bias"])
        loss = f.cross_entropy(main, labels) + 0.3 * f.cross_entropy(aux, labels)
        loss = loss + 0.5 * f.mse_loss(flat @ p["depth.weight"], torch.tensor(DEPTH.astype(np.float64)))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        np.testing.assert_allclose(outputs["loss"], loss.item(), rtol=1e-4)
    for name, value in p.items():
        np.testing.assert_allclose(state[name], value.detach(), rtol=1e-3, atol=1e-4, err_msg=name)


def test_one_of_several_is_plain(path: Path) -> None:
    """An output that is named stands for the model, under plain names."""
    compiled, notes = compile_model(path, Wishes(loss=f"aux={CE}"))
    assert [spec.name for spec in compiled.manifest.targets] == ["label"]
    assert any("left out: main, depth" in note for note in notes)
    assert compiled.graphs == compile_model(path, Wishes(loss=CE, output="aux"))[0].graphs


def test_new_classes_for_every_classifier(path: Path) -> None:
    compiled, _ = compile_model(path, Wishes(**WISHES, classes=7))
    shapes = {h.name: h.output.shape for h in compiled.manifest.heads}
    assert shapes == {"main": ("N", 7), "aux": ("N", 7), "depth": ("N", 2)}


def test_an_activation_that_another_output_reads_stays(tmp_path: Path) -> None:
    proto = network()
    proto.graph.node.append(_node("Flatten", ["main"], "again"))
    proto.graph.output.append(helper.make_tensor_value_info("again", TensorProto.FLOAT, None))
    path = save(proto, tmp_path / "m.onnx")
    compiled, _ = compile_model(path, Wishes(loss=("main=mse", f"again={CE}:0.5")))
    expected = session(path.read_bytes()).run(["main"], {"x": IMAGES})[0]
    found = run(compiled, "infer.onnx", {"x": IMAGES})
    np.testing.assert_allclose(found["output/main"], expected, rtol=1e-5)


@pytest.mark.usefixtures("in_process")
def test_the_command_line(path: Path, tmp_path: Path) -> None:
    bundle, folder = tmp_path / "b", tmp_path / "data"
    done(
        "build", path, "-o", bundle, "--loss", f"main={CE}", "--loss", f"aux={CE}:0.3", "--same-target",
        "aux=main", "--optimizer", "sgd",
    )  # fmt: skip
    (spec,) = Bundle.open(bundle).manifest.targets
    assert (spec.name, spec.array) == ("label", "y")
    folder.mkdir()
    for name in ("train", "test"):
        np.savez(folder / f"{name}.npz", x=IMAGES, y=LABELS)
    done("train", bundle, "--data", folder, "-o", tmp_path / "run", "--epochs", 1, "-q")
    record = json.loads(done("export", tmp_path / "run", "-o", tmp_path / "m.onnx", "--json").out)
    assert {"main_loss", "aux_loss", "main_accuracy", "aux_accuracy"} <= record["metrics"].keys()
    assert call("build", path, "--loss", "main=mse", "--loss", CE).status == 2


@pytest.mark.parametrize(
    ("wishes", "error", "words"),
    [
        ({"loss": (f"main={CE}", "mse")}, UsageError, "does not say of which output"),
        ({"loss": (f"main={CE}", "main=mse")}, UsageError, "given twice for the output 'main'"),
        ({"loss": (f"main={CE}", "aux=mes")}, UsageError, "Did you mean 'mse'?"),
        ({"loss": (f"main={CE}", "aux=mse:0")}, UsageError, "no number above 0"),
        ({"loss": (f"main={CE}", "aux=mse:much")}, UsageError, "no number above 0"),
        ({"loss": f"{CE}:2"}, UsageError, "there is no other loss"),
        ({"loss": (f"man={CE}", "aux=mse")}, ModelError, "Did you mean 'main'?"),
        ({"loss": f"main={CE}", "output": "main"}, UsageError, "says the same"),
        ({"loss": (f"main={CE}", "aux=mse"), "same_target": ("aux=man",)}, UsageError, "They are: main, aux"),
        ({"loss": (f"main={CE}", "aux=mse"), "same_target": ("aux=main",)}, UsageError, "can't share"),
        ({"loss": (f"main={CE}", "aux=pixel_cross_entropy")}, UnsupportedError, "PixelCrossEntropy takes"),
    ],
)
def test_wishes_that_can_not_be(
    path: Path, wishes: dict[str, Any], error: type[Exception], words: str
) -> None:
    with pytest.raises(error) as found:
        compile_model(path, Wishes(**wishes))
    assert words in str(found.value)


def test_names_that_the_step_needs(tmp_path: Path) -> None:
    proto = network()
    for node in proto.graph.node:
        node.input[:] = ["label/main" if name == "stem.bias" else name for name in node.input]
    next(t for t in proto.graph.initializer if t.name == "stem.bias").name = "label/main"
    with pytest.raises(ModelError, match="'label/main' is called as an input or output"):
        compile_model(save(proto, tmp_path / "m.onnx"), Wishes(**WISHES))
