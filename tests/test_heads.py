"""Several outputs with a loss each: the step, the bundle, data, runs, and what is made of them."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort
import pytest
from command_line import call, done
from reference import evaluator

from cnnc import Program, Tensor, losses, metrics, nn, optim
from cnnc.bundle import NEXT, Bundle, Manifest, write_bundle
from cnnc.compiler import Compiled, compile_program
from cnnc.data import Dataset, Split, check, load_for
from cnnc.deploy.export import export
from cnnc.deploy.predict import evaluate, predict
from cnnc.deploy.verify import verify
from cnnc.errors import DataError, GraphFileError
from cnnc.losses import Weighted
from cnnc.runtime import Run, Settings, resume, train
from cnnc.runtime import evaluate as evaluate_bundle

RNG = np.random.default_rng(0)
N, CLASSES = 37, 4
IMAGES = RNG.integers(0, 256, (N, 1, 8, 8)).astype(np.uint8)
LABELS = RNG.integers(0, CLASSES, N)
DEPTH = RNG.standard_normal((N, 2)).astype(np.float32)
PIXELS = RNG.integers(0, 3, (N, 8, 8))
PIXELS[: N // 2, :4] = 7  # ignored: the examples of a batch count for different shares


def network(x: nn.Value) -> dict[str, nn.Value]:
    """A class, an auxiliary class, a pair of numbers and a map, from one body."""
    body = nn.Conv2d(6, 3, padding=1, activation="relu")(x)
    aux = nn.Dense(CLASSES)(nn.Flatten()(nn.MaxPool2d(4)(body)))
    deep = nn.MaxPool2d(2)(nn.Conv2d(5, 3, padding=1, activation="relu")(body))
    flat = nn.Flatten()(deep)
    return {
        "digit": nn.Dense(CLASSES)(flat),
        "aux": aux,
        "depth": nn.Dense(2)(flat),
        "map": nn.Conv2d(3, 1)(body),
    }


LOSSES: dict[str, Any] = {
    "digit": losses.SoftmaxCrossEntropy(),
    "aux": Weighted(losses.SoftmaxCrossEntropy(), 0.3, target="digit"),
    "depth": 0.5 * losses.MeanSquaredError(),
    "map": 2 * losses.PixelCrossEntropy(ignore_index=7),
}
METRICS: dict[str, Any] = {
    "digit": [metrics.Accuracy(), metrics.TopKAccuracy(2)],
    "aux": [metrics.Accuracy()],
    "map": [metrics.ConfusionMatrix(), metrics.MeanIoU()],
}


BARE: dict[str, Any] = {"metrics": (), "classes": None}


def program(**changes: Any) -> Program:
    fields: dict[str, Any] = {
        "input": Tensor("image", ("N", 1, 8, 8)),
        "model": network,
        "loss": LOSSES,
        "optimizer": optim.SGD(0.05, momentum=0.9),
        "metrics": METRICS,
        "classes": {"digit": ["a", "b", "c", "d"]},
        "name": "heads",
    }
    return Program(**{**fields, **changes})


def dataset(**changes: Any) -> Dataset:
    named = {"y_digit": LABELS, "y_depth": DEPTH, "y_map": PIXELS, **changes}
    split = Split(IMAGES, np.zeros((N, 0)), named={k: v for k, v in named.items() if v is not None})
    return Dataset("made", split, split, ())


def run(compiled: Compiled, name: str, feeds: Mapping[str, Any]) -> dict[str, Any]:
    session = ort.InferenceSession(compiled.graphs[name])
    names = [output.name for output in session.get_outputs()]
    fed = {value.name: feeds[value.name] for value in session.get_inputs()}
    return dict(zip(names, session.run(names, fed), strict=True))


def batch(count: int = N, dtype: npt.DTypeLike = np.float32) -> dict[str, Any]:
    return {
        "image": IMAGES[:count].astype(dtype) / 255,
        "label/digit": LABELS[:count],
        "target/depth": DEPTH[:count].astype(dtype),
        "label/map": PIXELS[:count],
        "lr_scale": np.array(1.0, dtype),
    }


@pytest.fixture(scope="module")
def compiled() -> Compiled:
    return compile_program(program())


@pytest.fixture
def bundle(compiled: Compiled, tmp_path: Path) -> Bundle:
    return write_bundle(tmp_path / "bundle", compiled.manifest, compiled.graphs, compiled.state)


def test_the_manifest(compiled: Compiled) -> None:
    manifest = compiled.manifest
    assert [head.name for head in manifest.heads] == ["digit", "aux", "depth", "map"]
    assert [spec.name for spec in manifest.targets] == ["label/digit", "target/depth", "label/map"]
    assert [spec.array for spec in manifest.targets] == ["y_digit", "y_depth", "y_map"]
    assert [head.output.name for head in manifest.heads] == [
        "probabilities/digit", "probabilities/aux", "output/depth", "probabilities/map",
    ]  # fmt: skip
    assert manifest.classes == ("a", "b", "c", "d")
    names = [metric.name for metric in manifest.metrics]
    assert names[:5] == ["loss", "digit_loss", "aux_loss", "depth_loss", "map_loss"]
    assert {"digit_accuracy", "digit_top2_accuracy", "aux_accuracy", "map_mean_iou"} < set(names)
    assert Manifest.from_json(manifest.to_json()) == manifest


def test_one_output_keeps_its_names() -> None:
    """A dict of one, a list of one and the loss itself are the same."""

    def one(x: nn.Value) -> nn.Value:
        return nn.Dense(3)(nn.Flatten()(x))

    plain = program(model=one, loss=losses.SoftmaxCrossEntropy(), metrics=[metrics.Accuracy()], classes=None)
    whole = compile_program(plain)
    assert [spec.name for spec in whole.manifest.targets] == ["label"]
    assert (whole.manifest.head, whole.manifest.further, whole.manifest.target.array) == ("", (), "y")
    for changes in (
        {"loss": [losses.SoftmaxCrossEntropy()]},
        {"loss": {"only": losses.SoftmaxCrossEntropy()}, "metrics": {"only": [metrics.Accuracy()]}},
    ):
        fields: dict[str, Any] = {"model": one, "metrics": [metrics.Accuracy()], "classes": None, **changes}
        assert compile_program(program(**fields)).graphs == whole.graphs


def test_the_loss_is_the_weighted_sum(compiled: Compiled) -> None:
    outputs = run(compiled, "train.onnx", {**batch(), **compiled.state})
    parts = {
        name: outputs[f"metrics/{name}_loss/sum"] / outputs[f"metrics/{name}_loss/count"] for name in LOSSES
    }
    expected = parts["digit"] + 0.3 * parts["aux"] + 0.5 * parts["depth"] + 2 * parts["map"]
    np.testing.assert_allclose(outputs["loss"], expected, rtol=1e-6)
    np.testing.assert_allclose(outputs["metrics/loss/sum"], N * outputs["loss"], rtol=1e-6)
    assert outputs["metrics/loss/count"] == N
    assert outputs["metrics/map_loss/count"] == (PIXELS != 7).sum()


def test_both_forms_of_the_step(compiled: Compiled) -> None:
    feeds = {**batch(), **compiled.state}
    whole = run(compiled, "train.onnx", feeds)
    gradient = run(compiled, "grad.onnx", feeds)
    parts = {**gradient, **run(compiled, "apply.onnx", {**feeds, **gradient})}
    for name, value in whole.items():
        np.testing.assert_allclose(parts[name], value, rtol=1e-6, atol=1e-8, err_msg=name)


def test_inference_gives_every_output(compiled: Compiled) -> None:
    outputs = run(compiled, "infer.onnx", batch())
    assert {name: value.shape for name, value in outputs.items()} == {
        "probabilities/digit": (N, CLASSES), "probabilities/aux": (N, CLASSES), "output/depth": (N, 2),
        "probabilities/map": (N, 3, 8, 8),
    }  # fmt: skip
    for name in ("digit", "aux", "map"):
        np.testing.assert_allclose(outputs[f"probabilities/{name}"].sum(axis=1), 1, rtol=1e-5)


@pytest.mark.oracle
def test_steps_follow_pytorch() -> None:
    """Six steps in float64, with a shared target, weights, ignored labels and a short batch."""
    torch = pytest.importorskip("torch", reason="PyTorch is the oracle of whole steps (extra [oracle])")
    import onnx_ir as ir
    from torch.nn import functional as f

    compiled = compile_program(program(), dtype=ir.DataType.DOUBLE)
    entries = compiled.manifest.entries("parameter")
    theirs = {e.name: torch.tensor(compiled.state[e.name], requires_grad=True) for e in entries}
    optimizer = torch.optim.SGD(theirs.values(), 0.05, momentum=0.9)
    state = dict(compiled.state)
    train_step = evaluator(onnx.load_from_string(compiled.graphs["train.onnx"]))

    def dense(name: str, x: Any) -> Any:
        return x @ theirs[f"{name}.weight"] + theirs[f"{name}.bias"]

    def conv(name: str, x: Any, padding: int) -> Any:
        return f.conv2d(x, theirs[f"{name}.weight"], theirs[f"{name}.bias"], padding=padding)

    for step in range(6):
        feeds = batch(N if step % 3 else 5, np.float64)
        fed = {**feeds, **state}
        found = train_step.run(None, {name: fed[name] for name in train_step.input_names})
        outputs = dict(zip(train_step.output_names, found, strict=True))
        state = {n.removeprefix(NEXT): v for n, v in outputs.items() if n.startswith(NEXT)}
        x, labels = torch.tensor(feeds["image"]), torch.tensor(feeds["label/digit"])
        body = conv("conv1", x, 1).relu()
        aux = dense("dense1", f.max_pool2d(body, 4).flatten(1))
        flat = f.max_pool2d(conv("conv2", body, 1).relu(), 2).flatten(1)
        loss = f.cross_entropy(dense("dense2", flat), labels) + 0.3 * f.cross_entropy(aux, labels)
        loss = loss + 0.5 * f.mse_loss(dense("dense3", flat), torch.tensor(feeds["target/depth"]))
        pixels = torch.tensor(feeds["label/map"])
        loss = loss + 2 * f.cross_entropy(conv("conv3", body, 0), pixels, ignore_index=7)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        np.testing.assert_allclose(outputs["loss"], loss.item(), rtol=1e-9)
    for name, p in theirs.items():
        np.testing.assert_allclose(state[name], p.detach(), rtol=1e-8, atol=1e-10, err_msg=name)


def test_a_target_that_all_share_is_plain() -> None:
    """A network with an auxiliary classifier trains on ordinary data."""

    def model(x: nn.Value) -> tuple[nn.Value, nn.Value]:
        flat = nn.Flatten()(x)
        return nn.Dense(10)(flat), nn.Dense(10)(flat)

    loss = [losses.SoftmaxCrossEntropy(), Weighted(losses.SoftmaxCrossEntropy(), 0.4, target="output1")]
    fields = {"input": Tensor("image", ("N", 1, 8, 8)), "metrics": {"output1": [metrics.Accuracy()]}}
    made = program(model=model, loss=loss, classes={"output1": list("0123456789")}, **fields)
    manifest = compile_program(made).manifest
    assert [(spec.name, spec.array) for spec in manifest.targets] == [("label", "y")]
    check(load_for(manifest, "digits"), manifest)


def test_two_losses_of_one_output() -> None:
    def model(x: nn.Value) -> dict[str, nn.Value]:
        y = nn.Conv2d(3, 3, padding=1)(x)
        return {"ce": y, "dice": y}

    loss = {
        "ce": losses.PixelCrossEntropy(),
        "dice": Weighted(losses.Dice(), 0.5, target="ce"),
    }
    compiled = compile_program(program(model=model, loss=loss, metrics={}, classes=None))
    outputs = run(compiled, "train.onnx", {**batch(), **compiled.state, "label": PIXELS % 3})
    parts = [outputs[f"metrics/{n}_loss/sum"] / outputs[f"metrics/{n}_loss/count"] for n in ("ce", "dice")]
    np.testing.assert_allclose(outputs["loss"], parts[0] + 0.5 * parts[1], rtol=1e-6)
    given = run(compiled, "infer.onnx", batch())
    np.testing.assert_array_equal(given["probabilities/ce"], given["probabilities/dice"])


def test_gathered_batches_are_one_of_their_size() -> None:
    """Losses that count examples: the mean gradient over batches of different sizes."""
    loss = {name: each for name, each in LOSSES.items() if name != "map"}

    def model(x: nn.Value) -> dict[str, nn.Value]:
        return {name: value for name, value in whole_network(x).items() if name != "map"}

    def whole_network(x: nn.Value) -> dict[str, nn.Value]:
        flat = nn.Flatten()(x)
        return {"digit": nn.Dense(CLASSES)(flat), "aux": nn.Dense(CLASSES)(flat), "depth": nn.Dense(2)(flat)}

    whole, parts = (
        compile_program(program(model=model, loss=loss, metrics={}, accumulate=k)) for k in (1, 2)
    )
    expected = run(whole, "train.onnx", {**batch(), **whole.state})
    state = dict(parts.state)
    for window in (slice(0, 30), slice(30, N)):
        feeds = {name: value[window] if value.ndim else value for name, value in batch().items()}
        outputs = run(parts, "train.onnx", {**feeds, **state})
        state = {n.removeprefix(NEXT): v for n, v in outputs.items() if n.startswith(NEXT)}
    for name in whole.state.keys() - {"step"}:
        np.testing.assert_allclose(state[name], expected[NEXT + name], rtol=1e-5, atol=1e-6, err_msg=name)


def test_a_run_and_what_comes_after(bundle: Bundle, tmp_path: Path) -> None:
    settings = Settings(data=str(tmp_path / "data"), epochs=1, batch_size=8)
    folder = tmp_path / "data"
    folder.mkdir()
    for name in ("train.npz", "test.npz"):
        np.savez(folder / name, x=IMAGES, y_digit=LABELS, y_depth=DEPTH, y_map=PIXELS % 3)
    data = load_for(bundle.manifest, folder)
    summary = train(bundle, data, settings, tmp_path / "run")
    assert Run.open(tmp_path / "run").settings.best == "digit_accuracy"
    test = summary.test
    expected = test["digit_loss"] + 0.3 * test["aux_loss"] + 0.5 * test["depth_loss"] + 2 * test["map_loss"]
    assert test["loss"] == pytest.approx(expected)
    rows = list(csv.DictReader((tmp_path / "run" / "metrics.csv").read_text().splitlines()))
    assert float(rows[0]["test_digit_accuracy"]) == pytest.approx(test["digit_accuracy"])
    assert (tmp_path / "run" / "map_confusion_matrix.csv").exists()
    assert resume(tmp_path / "run", data, epochs=2).epochs == 2

    report = export(tmp_path / "run", tmp_path / "m.onnx", dataset=data)
    assert {"digit_loss", "digit_accuracy", "aux_loss", "depth_loss"} <= report.metrics.keys()
    assert report.difference < 1e-5
    ours = evaluate(tmp_path / "m.onnx", data)
    theirs = evaluate(tmp_path / "run", data)
    for name in ("digit_loss", "digit_accuracy", "aux_accuracy", "depth_loss"):
        assert ours[name] == pytest.approx(theirs[name], rel=1e-4), name


def test_no_metric_depends_on_the_batch(bundle: Bundle) -> None:
    """Though a batch's examples count for different shares of its heads."""
    state = bundle.initial_state()
    first, *others = (evaluate_bundle(bundle, state, dataset().test, batch_size=size) for size in (N, 1, 5))
    for values in others:
        assert values == pytest.approx(first, rel=1e-5)


@pytest.mark.usefixtures("in_process")
def test_the_command_line(tmp_path: Path) -> None:
    graph, folder = tmp_path / "two.py", tmp_path / "data"
    graph.write_text(
        "from cnnc import Program, Tensor, losses, metrics, nn, optim\n"
        "def model(x):\n"
        "    flat = nn.Flatten()(x)\n"
        "    return {'digit': nn.Dense(4)(flat), 'depth': nn.Dense(2)(flat)}\n"
        "program = Program(input=Tensor('image', ('N', 1, 8, 8)), model=model,\n"
        "    loss={'digit': losses.SoftmaxCrossEntropy(), 'depth': 0.5 * losses.MeanSquaredError()},\n"
        "    metrics={'digit': [metrics.Accuracy()]}, optimizer=optim.Adam())\n"
    )
    folder.mkdir()
    for name in ("train.npz", "test.npz"):
        np.savez(folder / name, x=IMAGES, y_digit=LABELS, y_depth=DEPTH)
    bundle, trained = tmp_path / "b", tmp_path / "run"
    done("build", graph, "-o", bundle)
    out = done("train", bundle, "--data", folder, "-o", trained, "--epochs", 1).out
    assert "digit accuracy" in out
    done("summary", bundle)
    done("export", trained, "-o", tmp_path / "m.onnx")
    out = done("predict", tmp_path / "m.onnx", "docs/images/digit-3.png").out
    assert [line.partition(": ")[0] for line in out.splitlines()] == [
        "docs/images/digit-3.png, digit", "docs/images/digit-3.png, depth",
    ]  # fmt: skip
    record = json.loads(done("predict", trained, "docs/images/digit-3.png", "--json").out)
    assert record["predictions"][0]["outputs"].keys() == {"digit", "depth"}
    result = call("train", bundle, "--data", "digits", "-o", tmp_path / "other")
    assert result.status == 1
    assert "no array y_digit" in result.err


def test_predict_names_the_output_that_is_no_vector(bundle: Bundle) -> None:
    with pytest.raises(Exception, match="output 'map' for one image is"):
        predict(bundle.path, ["docs/images/digit-3.png"])


@pytest.mark.slow
def test_every_runtime_agrees(bundle: Bundle) -> None:
    report = verify(bundle, batches=(3, 1))
    assert report.ok, report.record()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"y_depth": None}, "no array y_depth"),
        ({"y_depth": DEPTH[:, :1]}, r"the targets are \[1?"),
        ({"y_digit": LABELS + 1}, "classes are 0 to 3"),
        ({"y_map": PIXELS[:-1]}, "37 images and 36 labels"),
    ],
)
def test_data_that_do_not_fit(compiled: Compiled, changes: dict[str, Any], words: str) -> None:
    with pytest.raises(DataError, match=words):
        check(dataset(**changes), compiled.manifest)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({**BARE, "loss": {"digit": losses.SoftmaxCrossEntropy()}}, "returned outputs named 'digit', 'aux'"),
        ({**BARE, "loss": losses.SoftmaxCrossEntropy()}, "is not a dict"),
        ({**BARE, "model": lambda x: nn.Flatten()(x)}, "1 value, and there are 4 losses"),
        ({"metrics": [metrics.Accuracy()]}, "metrics must be a dict by output"),
        ({"metrics": {"digits": [metrics.Accuracy()]}}, "'digits', for which there is no loss. Did you mean"),
        ({"metrics": {"depth": [metrics.Accuracy()]}}, "Accuracy counts right answers"),
        ({"classes": ["a", "b"]}, "classes must be a dict by output"),
        ({"classes": {"digit": ["a", "b"]}}, "2 class names for an output"),
        ({"loss": {**LOSSES, "aux": Weighted(LOSSES["digit"], target="digt")}}, "Did you mean 'digit'?"),
        ({"loss": {**LOSSES, "aux": Weighted(LOSSES["digit"], target="map")}}, "can't share the target"),
        ({"loss": {**LOSSES, "aux": Weighted(LOSSES["digit"], target="aux")}}, "has none of its own"),
        ({"loss": {**LOSSES, "aux": 3}}, "loss must be a Loss"),
        ({"loss": {**LOSSES, "a b": 3}}, "can't be used"),
        ({"loss": {}}, "loss must be a Loss"),
        ({**BARE, "loss": 0.5 * losses.SoftmaxCrossEntropy()}, "there is no other"),
    ],
)
def test_what_can_not_be(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(GraphFileError) as error:
        compile_program(program(**changes))
    assert words in str(error.value)
    assert "test_heads.py:" in str(error.value)


@pytest.mark.parametrize("weight", [0, -1, float("nan"), "a"])
def test_weights_that_can_not_be(weight: Any) -> None:
    with pytest.raises(GraphFileError, match="weight must be a number above 0"):
        Weighted(losses.MeanSquaredError(), weight)
