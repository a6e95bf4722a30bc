"""LoRA: the step, what stays, what is exported, against PyTorch's two convolutions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from command_line import done
from foreign_models import inference, model, save, session, trainer, weight
from onnx import helper

from cnnc.bundle import Bundle, merged, write_bundle
from cnnc.deploy.export import export
from cnnc.deploy.verify import verify
from cnnc.errors import UsageError
from cnnc.foreign.training import Wishes, compile_model

RNG = np.random.default_rng(0)
IMAGES = RNG.standard_normal((6, 3, 8, 8)).astype(np.float32)
LABELS = RNG.integers(0, 5, 6)
ADAPTED = ("conv1.weight", "grouped.weight", "fc1.weight", "fc2.kernel")
WISHES: dict[str, Any] = {"lora": r"(conv1|grouped|fc).*", "lora_rank": 2, "lora_alpha": 6.0}


def network() -> onnx.ModelProto:
    """Convolutions, one grouped, and dense layers in both orders of their weights."""

    def node(op: str, inputs: list[str], output: str, **attributes: Any) -> onnx.NodeProto:
        return helper.make_node(op, inputs, [output], output, **attributes)

    nodes = [
        node("Conv", ["x", "stem.weight"], "s", pads=[1, 1, 1, 1]),
        node("Relu", ["s"], "s1"),
        node("Conv", ["s1", "conv1.weight", "conv1.bias"], "a", pads=[1, 1, 1, 1], strides=[2, 2]),
        node("BatchNormalization", ["a", "bn.weight", "bn.bias", "bn.mean", "bn.var"], "n"),
        node("Relu", ["n"], "b"),
        node("Conv", ["b", "grouped.weight"], "c", group=2),
        node("Relu", ["c"], "d"),
        node("Flatten", ["d"], "e"),
        node("Gemm", ["e", "fc1.weight", "fc1.bias"], "f", transB=1),
        node("Relu", ["f"], "g"),
        node("MatMul", ["g", "fc2.kernel"], "h"),
        node("Add", ["h", "fc2.bias"], "y"),
    ]
    tensors = [
        weight("stem.weight", 6, 3, 3, 3), weight("conv1.weight", 8, 6, 3, 3), weight("conv1.bias", 8),
        weight("grouped.weight", 6, 4, 3, 3), weight("fc1.weight", 10, 24), weight("fc1.bias", 10),
        weight("fc2.kernel", 10, 5), weight("fc2.bias", 5), weight("bn.weight", 8), weight("bn.bias", 8),
        weight("bn.mean", 8), onnx.numpy_helper.from_array(np.full(8, 2, np.float32), "bn.var"),
    ]  # fmt: skip
    return model(nodes, tensors)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return save(network(), tmp_path / "network.onnx")


def test_at_first_it_is_the_source(path: Path) -> None:
    compiled, notes = compile_model(path, Wishes(**WISHES))
    expected = session(path.read_bytes()).run(None, {"x": IMAGES})[0]
    powers = np.exp(expected - expected.max(axis=1, keepdims=True))
    np.testing.assert_allclose(
        inference(compiled)(IMAGES), powers / powers.sum(axis=1, keepdims=True), rtol=1e-5
    )
    manifest = compiled.manifest
    assert tuple(adapter.weight for adapter in manifest.adapters) == ADAPTED
    assert {adapter.scale for adapter in manifest.adapters} == {3.0}
    assert any("4 weights are adapted at rank 2" in note for note in notes)
    entries = {entry.name: entry for entry in manifest.state}
    assert (entries["conv1.lora_B"].shape, entries["conv1.lora_A"].shape) == ((8, 2), (2, 54))
    assert (entries["fc2.kernel.lora_A"].shape, entries["fc2.kernel.lora_B"].shape) == ((10, 2), (2, 5))
    assert entries["grouped.lora_A"].shape == (2, 36)
    for name, inputs in (("conv1.lora_A", 54), ("fc1.lora_A", 24), ("fc2.kernel.lora_A", 10)):
        drawn = np.abs(compiled.state[name])
        assert 0.5 / np.sqrt(inputs) < drawn.max() <= 1 / np.sqrt(inputs)
    assert not any(compiled.state[name].any() for name in entries if name.endswith(".lora_B"))
    infer = onnx.load_from_string(compiled.graphs["infer.onnx"])
    assert not any("lora" in tensor.name for tensor in infer.graph.initializer)


def test_nothing_else_moves(path: Path) -> None:
    compiled, _ = compile_model(path, Wishes(**WISHES, freeze_batchnorm=True))
    step, state = trainer(compiled), dict(compiled.state)
    for _ in range(2):  # at the first step A's gradient is 0, for B is
        _, state = step(state, IMAGES, LABELS)
    moved = {
        e.name
        for e in compiled.manifest.entries("parameter", "buffer")
        if not np.array_equal(state[e.name], compiled.state[e.name])
    }
    assert moved == {f"{name.removesuffix('.weight')}.lora_{letter}" for name in ADAPTED for letter in "AB"}


@pytest.mark.oracle
@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_steps_follow_pytorch(path: Path, optimizer: str) -> None:
    """Where ungrouped convolutions are two, as in PEFT, and dense layers two dense layers."""
    torch = pytest.importorskip("torch", reason="PyTorch is the oracle of whole steps (extra [oracle])")
    f = torch.nn.functional
    rate = 0.05 if optimizer == "sgd" else 0.005
    wishes = Wishes(**WISHES, freeze_batchnorm=True, optimizer=optimizer, lr=rate)
    compiled, _ = compile_model(path, wishes)
    p = {name: torch.tensor(value.astype(np.float64)) for name, value in compiled.state.items()}
    trained = {n: v.requires_grad_() for n, v in p.items() if n.endswith((".lora_A", ".lora_B"))}
    kind = {"sgd": torch.optim.SGD, "adamw": torch.optim.AdamW}[optimizer]
    given = {} if optimizer == "sgd" else {"eps": 1e-7, "weight_decay": 0.01}
    peer = kind(trained.values(), rate, **given)

    def conv(x: Any, name: str, **options: Any) -> Any:
        low = f.conv2d(x, p[f"{name}.lora_A"].reshape(2, *p[f"{name}.weight"].shape[1:]), **options)
        return f.conv2d(x, p[f"{name}.weight"], **options) + 3 * f.conv2d(
            low, p[f"{name}.lora_B"][..., None, None]
        )

    step, state, labels = trainer(compiled), dict(compiled.state), torch.tensor(LABELS)
    for _ in range(10):
        outputs, state = step(state, IMAGES, LABELS)
        x = f.conv2d(torch.tensor(IMAGES.astype(np.float64)), p["stem.weight"], padding=1).relu()
        x = conv(x, "conv1", padding=1, stride=2) + p["conv1.bias"][:, None, None]
        x = f.batch_norm(x, p["bn.mean"], p["bn.var"], p["bn.weight"], p["bn.bias"]).relu()
        change = (p["grouped.lora_B"] @ p["grouped.lora_A"]).reshape(6, 4, 3, 3)
        x = f.conv2d(x, p["grouped.weight"] + 3 * change, groups=2).relu().flatten(1)
        low = f.linear(x, p["fc1.lora_A"])
        x = (f.linear(x, p["fc1.weight"], p["fc1.bias"]) + 3 * f.linear(low, p["fc1.lora_B"])).relu()
        x = x @ p["fc2.kernel"] + 3 * (x @ p["fc2.kernel.lora_A"]) @ p["fc2.kernel.lora_B"] + p["fc2.bias"]
        loss = f.cross_entropy(x, labels)
        peer.zero_grad()
        loss.backward()
        peer.step()
        np.testing.assert_allclose(outputs["loss"], loss.item(), rtol=1e-4)
    for name, value in trained.items():
        np.testing.assert_allclose(state[name], value.detach(), rtol=1e-3, atol=1e-4, err_msg=name)


@pytest.mark.usefixtures("in_process")
def test_trained_and_exported(path: Path, tmp_path: Path) -> None:
    """The exported file has the source's tensors and no other, and does what the run's evaluation did."""
    bundle, run, data = tmp_path / "b", tmp_path / "run", tmp_path / "data"
    options = ("--lora", "conv1.*|fc1.*", "--lora-rank", 2, "--lora-alpha", 4, "--lr", 0.02)
    assert "adapted at rank 2" in done("build", path, "-o", bundle, *options).err
    data.mkdir()
    for name in ("train", "test"):
        np.savez(data / f"{name}.npz", x=IMAGES, y=LABELS)
    done("summary", bundle)
    done("train", bundle, "--data", data, "-o", run, "--epochs", 3, "-q")
    report = json.loads(done("export", run, "-o", tmp_path / "m.onnx", "--json").out)
    assert report["difference"] < 1e-5
    assert report["metrics"]["loss"]["exported"] == pytest.approx(report["metrics"]["loss"]["run"], rel=1e-4)
    names = {tensor.name for tensor in onnx.load(tmp_path / "m.onnx").graph.initializer}
    assert {"conv1.weight", "fc1.weight"} < names
    assert not any("lora" in name for name in names)


def test_merging_is_the_formula(path: Path, tmp_path: Path) -> None:
    compiled, _ = compile_model(path, Wishes(**WISHES))
    state = {name: RNG.standard_normal(v.shape).astype(v.dtype) for name, v in compiled.state.items()}
    whole = merged(compiled.manifest, state)
    product = state["conv1.lora_B"] @ state["conv1.lora_A"]
    expected = state["conv1.weight"] + 3 * product.reshape(8, 6, 3, 3)
    np.testing.assert_allclose(whole["conv1.weight"], expected, rtol=1e-5, atol=1e-5)
    assert whole["stem.weight"] is state["stem.weight"]
    bundle = write_bundle(tmp_path / "b", compiled.manifest, compiled.graphs, compiled.state)
    assert Bundle.open(bundle.path).manifest == bundle.manifest
    assert export(bundle, tmp_path / "m.onnx").difference < 1e-5


def transposed(group: int) -> onnx.ModelProto:
    """A ConvTranspose, whose weight is [in, out / group, k, k], before the classes."""
    nodes = [
        helper.make_node("Conv", ["x", "stem.weight"], ["s"], strides=[2, 2]),
        helper.make_node("Relu", ["s"], ["s1"]),
        helper.make_node("ConvTranspose", ["s1", "up.weight", "up.bias"], ["u"], strides=[2, 2], group=group),
        helper.make_node("Relu", ["u"], ["v"]),
        helper.make_node("GlobalAveragePool", ["v"], ["p"]),
        helper.make_node("Flatten", ["p"], ["e"]),
        helper.make_node("Gemm", ["e", "fc.weight", "fc.bias"], ["y"], transB=1),
    ]
    tensors = [
        weight("stem.weight", 8, 3, 3, 3), weight("up.weight", 8, 6 // group, 3, 3), weight("up.bias", 6),
        weight("fc.weight", 5, 6), weight("fc.bias", 5),
    ]  # fmt: skip
    return model(nodes, tensors)


@pytest.mark.parametrize("group", [1, 2])
def test_a_transposed_convolution(group: int, tmp_path: Path) -> None:
    """Its inputs are the rows of its weight: A, which is drawn, is the left factor, and B the right one."""
    source = save(transposed(group), tmp_path / "up.onnx")
    compiled, _ = compile_model(source, Wishes(lora="up.*", lora_rank=2, lora_alpha=6, optimizer="sgd"))
    (adapter,) = compiled.manifest.adapters
    assert (adapter.weight, adapter.left, adapter.right) == ("up.weight", "up.lora_A", "up.lora_B")
    a, b = compiled.state["up.lora_A"], compiled.state["up.lora_B"]
    assert (a.shape, b.shape) == ((8, 2), (2, 6 // group * 9))
    assert 0.5 / np.sqrt(8) < np.abs(a).max() <= 1 / np.sqrt(8)
    assert not b.any()
    step, state = trainer(compiled), dict(compiled.state)
    for _ in range(2):
        _, state = step(state, IMAGES, LABELS)
    moved = {e.name for e in compiled.manifest.state if e.role == "parameter"} - {
        name for name in state if np.array_equal(state[name], compiled.state[name])
    }
    assert moved == {"up.lora_A", "up.lora_B"}
    plain = transposed(group)
    for tensor in plain.graph.initializer:
        if tensor.name == "up.weight":
            change = 3 * (state["up.lora_A"] @ state["up.lora_B"]).reshape(8, 6 // group, 3, 3)
            whole = onnx.numpy_helper.to_array(tensor) + change
            tensor.CopyFrom(onnx.numpy_helper.from_array(whole, "up.weight"))
    logits = session(plain.SerializeToString()).run(None, {"x": IMAGES})[0].astype(np.float64)
    losses = np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(6), LABELS]
    outputs, _ = step(state, IMAGES, LABELS)
    np.testing.assert_allclose(outputs["loss"], losses.mean(), rtol=1e-5)
    bundle = write_bundle(tmp_path / "b", compiled.manifest, compiled.graphs, state)
    assert export(bundle, tmp_path / "m.onnx").difference < 1e-5


@pytest.mark.oracle
@pytest.mark.parametrize("group", [1, 2])
def test_a_transposed_convolution_follows_pytorch(group: int, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is the oracle of whole steps (extra [oracle])")
    f = torch.nn.functional
    source = save(transposed(group), tmp_path / "up.onnx")
    wishes = Wishes(lora="up.*", lora_rank=2, lora_alpha=6, optimizer="sgd", lr=0.1)
    compiled, _ = compile_model(source, wishes)
    p = {name: torch.tensor(value.astype(np.float64)) for name, value in compiled.state.items()}
    trained = {name: p[name].requires_grad_() for name in ("up.lora_A", "up.lora_B")}
    peer = torch.optim.SGD(trained.values(), 0.1)
    step, state = trainer(compiled), dict(compiled.state)
    for _ in range(10):
        outputs, state = step(state, IMAGES, LABELS)
        x = f.conv2d(torch.tensor(IMAGES.astype(np.float64)), p["stem.weight"], stride=2).relu()
        change = 3 * (p["up.lora_A"] @ p["up.lora_B"]).reshape(p["up.weight"].shape)
        x = f.conv_transpose2d(x, p["up.weight"] + change, p["up.bias"], stride=2, groups=group).relu()
        x = f.linear(x.mean(dim=(2, 3)), p["fc.weight"], p["fc.bias"])
        loss = f.cross_entropy(x, torch.tensor(LABELS))
        peer.zero_grad()
        loss.backward()
        peer.step()
        np.testing.assert_allclose(outputs["loss"], loss.item(), rtol=1e-5)
    for name, value in trained.items():
        np.testing.assert_allclose(state[name], value.detach(), rtol=1e-4, atol=1e-6, err_msg=name)


def test_a_new_head_is_trained_whole(path: Path) -> None:
    """Though the pattern matches it too: there is nothing to adapt in what is drawn anew."""
    compiled, _ = compile_model(path, Wishes(lora=".*", lora_rank=2, classes=3))
    trained = {e.name for e in compiled.manifest.entries("parameter") if e.trainable}
    assert {"fc2.kernel", "fc2.bias", "fc1.lora_A"} < trained
    assert "fc1.bias" not in trained
    assert "fc2.kernel" not in {adapter.weight for adapter in compiled.manifest.adapters}


def test_what_train_matches_is_trained_too(path: Path) -> None:
    compiled, _ = compile_model(path, Wishes(lora="conv1.*", lora_rank=2, train=r".*\.bias|bn\..*"))
    trained = {e.name for e in compiled.manifest.entries("parameter") if e.trainable}
    assert trained == {
        "conv1.bias", "fc1.bias", "fc2.bias", "bn.bias", "bn.weight", "conv1.lora_A", "conv1.lora_B",
    }  # fmt: skip


def test_what_lies_before_costs_nothing(path: Path) -> None:
    compiled, _ = compile_model(path, Wishes(lora="fc1.*", lora_rank=2, freeze_batchnorm=True))
    assert not any(spec.op.startswith(("ConvGrad", "BatchNorm")) for spec in compiled.manifest.functions)


@pytest.mark.slow
def test_every_runtime_agrees(path: Path, tmp_path: Path) -> None:
    compiled, _ = compile_model(path, Wishes(**WISHES))
    report = verify(write_bundle(tmp_path / "b", compiled.manifest, compiled.graphs, compiled.state))
    assert report.ok, report.record()


@pytest.mark.parametrize(
    ("wishes", "words"),
    [
        ({"lora": "conv9.*"}, "Did you mean 'conv1.*'?"),
        (
            {"lora": r"bn\..*"},
            "no weight of a Conv, Gemm or MatMul that stays as it is. There are: stem.weight",
        ),
        ({"lora": "fc2.*", "lora_rank": 50}, "no smaller than the weights. Take a lower rank."),
        ({"lora": "fc2.*", "lora_rank": 0}, "--lora-rank is 0"),
        ({"lora": "fc2.*", "lora_alpha": float("nan")}, "--lora-alpha is nan"),
        ({"lora_rank": 4}, "--lora-rank needs --lora"),
        ({"lora": "("}, "no regular expression"),
    ],
)
def test_wishes_that_can_not_be(path: Path, wishes: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError) as error:
        compile_model(path, Wishes(**wishes))
    assert words in str(error.value)


def test_a_model_without_a_weight_to_adapt(tmp_path: Path) -> None:
    """The weight of its convolution is computed of another tensor."""
    nodes = [
        helper.make_node("Neg", ["v"], ["w"]),
        helper.make_node("Conv", ["x", "w"], ["c"]),
        helper.make_node("GlobalMaxPool", ["c"], ["y"]),
    ]
    path = save(model(nodes, [weight("v", 4, 3, 3, 3)]), tmp_path / "model.onnx")
    with pytest.raises(UsageError, match=r"as it is\. The model has no such weight"):
        compile_model(path, Wishes(lora="v"))
