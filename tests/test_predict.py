"""Predictions and evaluations: by runs, by what they export, and by models from elsewhere."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
from built import DIGITS, build, colour_data, digits_run
from onnx import helper, numpy_helper, parser
from PIL import Image

from cnnc import Program, Tensor, losses, metrics, nn, optim
from cnnc.bundle import write_bundle
from cnnc.compiler import compile_program
from cnnc.data import Dataset, Split, load
from cnnc.deploy.export import export
from cnnc.deploy.predict import evaluate, open_model, predict
from cnnc.errors import CnncError, DataError, ModelError, RunError, UsageError
from cnnc.runtime import Run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return digits_run(tmp_path_factory.mktemp("digits"))


@pytest.fixture(scope="module")
def models(run: Run, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The run, and it exported, with and without preprocessing."""
    folder = tmp_path_factory.mktemp("models")
    export(run, folder / "plain.onnx")
    export(run, folder / "embedded.onnx", embed_preprocessing=True)
    return {"run": run.path, **{path.stem: path for path in folder.iterdir()}}


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The first twenty test images as files, some of them in colour."""
    folder = tmp_path_factory.mktemp("images")
    for index, pixels in enumerate(load("digits").test.images[:20]):
        image = Image.fromarray(pixels[0])
        (image.convert("RGB") if index % 2 else image).save(folder / f"{index:02}.png")
    return sorted(folder.iterdir())


def test_the_run_and_its_exports_say_the_same(models: dict[str, Path], images: list[Path]) -> None:
    labels = load("digits").test.labels[:20]
    by_run = predict(models["run"], images, top=10, device="cpu")
    right = [DIGITS.index(p.scores[0].name) == label for p, label in zip(by_run, labels, strict=True)]
    assert sum(right) >= 16
    for prediction, image in zip(by_run, images, strict=True):
        values = [score.value for score in prediction.scores]
        assert values == sorted(values, reverse=True)
        assert sum(values) == pytest.approx(1.0, abs=1e-5)
        assert {score.name for score in prediction.scores} == set(DIGITS)
        assert all(score.name == DIGITS[score.index] for score in prediction.scores)
        assert (prediction.image, prediction.notes) == (str(image), ())
    for name in ("plain", "embedded"):
        for ours, theirs in zip(predict(models[name], images, top=10), by_run, strict=True):
            assert [s.name for s in ours.scores[:1]] == [s.name for s in theirs.scores[:1]]
            by_name = {score.name: score.value for score in theirs.scores}
            assert {s.name: s.value for s in ours.scores} == pytest.approx(by_name, abs=1e-5)
    assert json.loads(json.dumps(by_run[0].record()))["scores"][0]["name"] in DIGITS


def test_as_many_as_asked_for(models: dict[str, Path], images: list[Path]) -> None:
    (prediction,) = predict(models["run"], images[:1], top=2)
    assert len(prediction.scores) == 2
    assert predict(models["run"], []) == []
    with pytest.raises(UsageError, match="at least 1"):
        predict(models["run"], images, top=0)


def test_images_of_another_size_are_stretched(models: dict[str, Path], tmp_path: Path) -> None:
    pixels = load("digits").test.images[0, 0]
    Image.fromarray(np.kron(pixels, np.ones((4, 3), np.uint8))).save(tmp_path / "large.png")
    Image.fromarray(pixels).save(tmp_path / "right.png")
    large, right = predict(models["plain"], [tmp_path / "large.png", tmp_path / "right.png"])
    assert large.notes == ("stretched from 32×24 (height × width) to 8×8",)
    assert right.notes == ()
    assert large.scores[0].name == right.scores[0].name


@pytest.mark.parametrize("name", ["run", "plain", "embedded"])
def test_bad_images(models: dict[str, Path], images: list[Path], tmp_path: Path, name: str) -> None:
    (tmp_path / "text.png").write_text("not an image")
    (tmp_path / "cut.png").write_bytes(images[0].read_bytes()[:60])
    (tmp_path / "empty.png").touch()
    for bad in ("text.png", "cut.png", "empty.png", "none.png", "."):
        with pytest.raises(DataError) as caught:
            predict(models[name], [images[0], tmp_path / bad])
        assert str(tmp_path / bad) in str(caught.value)


def _model(
    path: Path,
    body: str = "p = GlobalAveragePool(x) f = Flatten(p) y = Gemm(f, w)",
    inputs: str = "float[N,3,H,W] x",
    output: str = "float[N,4] y",
    **metadata: str,
) -> Path:
    """A model from elsewhere: the mean of each channel, times a weight [3, 4]."""
    opset = '<ir_version: 8, opset_import: ["" : 18]>'
    model = parser.parse_model(f"{opset} foreign ({inputs}) => ({output}) {{ {body} }}")
    weight = np.arange(12, dtype=np.float32).reshape(3, 4)
    if "w)" in body:
        model.graph.initializer.append(numpy_helper.from_array(weight, "w"))
    helper.set_model_props(model, {key.replace("_", "."): value for key, value in metadata.items()})
    onnx.checker.check_model(model)
    onnx.save(model, path)
    return path


GRAY = "p = GlobalAveragePool(x) y = Flatten(p)"
PREPROCESSING = '{"scale": 0.01, "mean": [0.1, 0.2, 0.3], "std": [0.5, 0.5, 0.5]}'


def test_a_model_from_elsewhere(tmp_path: Path) -> None:
    """Without metadata: pixels in 0…1, outputs taken for logits, classes numbered; the notes say it."""
    Image.new("RGB", (6, 5), (51, 102, 255)).save(tmp_path / "a.png")
    means = np.array([0.2, 0.4, 1.0])
    logits = means @ np.arange(12).reshape(3, 4)
    expected = np.exp(logits) / np.exp(logits).sum()
    (prediction,) = predict(_model(tmp_path / "m.onnx"), [tmp_path / "a.png"], top=4)
    assert [score.name for score in prediction.scores] == ["3", "2", "1", "0"]
    np.testing.assert_allclose([score.value for score in prediction.scores], expected[::-1], rtol=1e-5)
    assert len(prediction.notes) == 2
    assert "taken for logits or probabilities" in prediction.notes[0]
    assert "pixels scaled to 0…1" in prediction.notes[1]
    softmax = "p = GlobalAveragePool(x) f = Flatten(p) z = Gemm(f, w) y = Softmax(z)"
    (again,) = predict(_model(tmp_path / "s.onnx", softmax), [tmp_path / "a.png"], top=4)
    np.testing.assert_allclose([score.value for score in again.scores], expected[::-1], rtol=1e-5)


def test_what_metadata_say(tmp_path: Path) -> None:
    Image.new("RGB", (6, 5), (50, 100, 200)).save(tmp_path / "a.png")
    values = {
        "cnnc_activation": "identity",
        "cnnc_preprocessing": PREPROCESSING,
        "cnnc_classes": '["a","b","c"]',
    }
    model = _model(tmp_path / "m.onnx", GRAY, output="float[N,3] y", **values)
    (prediction,) = predict(model, [tmp_path / "a.png"], top=1)
    assert [score.name for score in prediction.scores] == ["a", "b", "c"], "values come all, in their order"
    np.testing.assert_allclose([score.value for score in prediction.scores], [0.8, 1.6, 3.4], rtol=1e-5)
    assert prediction.notes == ()


@pytest.mark.parametrize(
    ("inputs", "body"),
    [
        ("uint8[N,3,5,6] x", "c = Cast<to = 1>(x) p = GlobalAveragePool(c) f = Flatten(p) y = Gemm(f, w)"),
        ("float16[N,3,5,6] x", "c = Cast<to = 1>(x) p = GlobalAveragePool(c) f = Flatten(p) y = Gemm(f, w)"),
        ("double[N,3,5,6] x", "c = Cast<to = 1>(x) p = GlobalAveragePool(c) f = Flatten(p) y = Gemm(f, w)"),
        ("float[1,3,5,6] x", "p = GlobalAveragePool(x) f = Flatten(p) y = Gemm(f, w)"),
    ],
)
def test_other_inputs(inputs: str, body: str, tmp_path: Path) -> None:
    model = open_model(_model(tmp_path / "m.onnx", body, inputs), device="cpu")
    pixels = np.random.default_rng(0).integers(0, 256, (3, 3, 5, 6), dtype=np.uint8)
    means = pixels.mean(axis=(2, 3)) / (1 if "uint8" in inputs else 255)
    logits = means @ np.arange(12).reshape(3, 4)
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    expected = powers / powers.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(model.outputs(pixels), expected, rtol=2e-2, atol=1e-6)


BAD_MODELS: dict[str, tuple[bytes | dict[str, str], str]] = {
    "no model": (b"this is text, not a protobuf", "no ONNX model that ONNX Runtime can load"),
    "empty": (b"", "no ONNX model that ONNX Runtime can load"),
    "two inputs": ({"inputs": "float[N,3,H,W] x, float z"}, r"2 inputs \(x, z\)"),
    "integers": (
        {"inputs": "int64[N,3,H,W] x", "body": "y = Flatten(x)", "output": "int64[N,4] y"},
        "is int64",
    ),
    "channels last": (
        {"inputs": "float[N,8,8,3] x", "body": "y = Flatten(x)", "output": "float[N,192] y"},
        r"its input 'x' is \[N, 8, 8, 3\]",
    ),
    "no image": (
        {"inputs": "float[N,3] x", "body": "y = Gemm(x, w)"},
        r"its input 'x' is \[N, 3\]",
    ),
    "a map of classes": ({"body": "y = Relu(x)", "output": "float[N,3,H,W] y"}, "not a vector of classes"),
    "fails": ({"body": "f = Flatten(x) y = Gemm(f, w)"}, "ONNX Runtime failed at a node of type Gemm"),
    "activation": ({"cnnc_activation": "swish"}, "its metadata can't be read: cnnc.activation is 'swish'"),
    "preprocessing": ({"cnnc_preprocessing": "{"}, "its metadata can't be read: "),
    "no scale": ({"cnnc_preprocessing": '{"mean": [], "std": []}'}, "its metadata can't be read: 'scale'"),
    "channels": ({"cnnc_preprocessing": '{"scale": 1, "mean": [1], "std": []}'}, "1 numbers for 3 channels"),
    "list": ({"cnnc_preprocessing": "[1]"}, "its metadata can't be read: "),
    "classes": ({"cnnc_classes": '{"cat": 1}'}, "its metadata can't be read: cnnc.classes"),
    "ignored": (
        {"cnnc_activation": "softmax", "cnnc_ignored": "true"},
        "its metadata can't be read: cnnc.ignored is True",
    ),
}


@pytest.mark.parametrize("case", BAD_MODELS)
def test_bad_models(case: str, tmp_path: Path) -> None:
    Image.new("RGB", (6, 5)).save(tmp_path / "a.png")
    made, message = BAD_MODELS[case]
    if isinstance(made, bytes):
        (tmp_path / "m.onnx").write_bytes(made)
    else:
        _model(tmp_path / "m.onnx", **made)
    with pytest.raises(ModelError, match=message) as caught:
        predict(tmp_path / "m.onnx", [tmp_path / "a.png"])
    assert "m.onnx" in str(caught.value)


def test_truncated_models_and_what_is_none(models: dict[str, Path], tmp_path: Path) -> None:
    whole = models["plain"].read_bytes()
    for size in (1, 100, len(whole) // 2, len(whole) - 1):
        (tmp_path / "cut.onnx").write_bytes(whole[:size])
        with pytest.raises(ModelError, match="no ONNX model"):
            predict(tmp_path / "cut.onnx", [])
    for source, error, message in (
        (tmp_path / "none.onnx", ModelError, "there is no such model"),
        (tmp_path / "none", RunError, "there is no such run or bundle"),
        (tmp_path, RunError, "neither a run"),
    ):
        with pytest.raises(error, match=message):
            predict(source, [])


@pytest.mark.parametrize("name", ["run", "plain", "embedded"])
def test_evaluations_agree(models: dict[str, Path], run: Run, name: str) -> None:
    by_run = evaluate(run, load("digits"), device="cpu")
    measured = evaluate(models[name], "digits", device="cpu", batch_size=100)
    assert measured.keys() == by_run.keys() == {"loss", "accuracy"}
    assert measured["accuracy"] == by_run["accuracy"]
    assert measured["loss"] == pytest.approx(by_run["loss"], rel=1e-5)


@pytest.mark.parametrize("ignored", [-1, 1, 255])
def test_ignored_labels_count_for_nothing(ignored: int, tmp_path: Path) -> None:
    """Of images and of pixels, of one output and of several: as eval.onnx counts, and export proves."""
    rng = np.random.default_rng(0)
    kinds = rng.integers(0, 4, 50)
    kinds[rng.random(50) < 0.3] = ignored
    kinds[:10] = ignored  # a whole batch
    pixels = rng.integers(0, 3, (50, 6, 6))
    pixels[:, 2:4] = ignored
    images = rng.integers(0, 256, (50, 1, 6, 6), dtype=np.uint8)

    outputs = {
        "kind": nn.Sequential(nn.Flatten(), nn.Dense(4)),
        "map": nn.Sequential(nn.Conv2d(3, 3, padding="same")),
    }
    given = {
        "kind": losses.SoftmaxCrossEntropy(ignore_index=ignored),
        "map": losses.PixelCrossEntropy(ignore_index=ignored),
    }
    for names in (["kind"], ["map"], ["kind", "map"]):
        several = len(names) > 1
        program = Program(
            Tensor("image", ("N", 1, 6, 6)),
            (lambda x: {name: layers(x) for name, layers in outputs.items()})
            if several
            else outputs[names[0]],
            given if several else given[names[0]],
            optim.SGD(0.1),
            metrics={name: [metrics.Accuracy()] for name in names} if several else [metrics.Accuracy()],
        )
        compiled = compile_program(program)
        folder = tmp_path / "-".join(names)
        bundle = write_bundle(folder / "b", compiled.manifest, compiled.graphs, compiled.state)
        targets = {"kind": kinds, "map": pixels}
        if several:
            split = Split(images, np.zeros((50, 0)), named={f"y_{n}": v for n, v in targets.items()})
        else:
            split = Split(images, targets[names[0]])
        dataset = Dataset("some", split, split)
        report = export(bundle, folder / "m.onnx", dataset=dataset)
        by_bundle = evaluate(bundle, dataset, device="cpu", batch_size=10)
        by_model = evaluate(folder / "m.onnx", dataset, device="cpu", batch_size=10)
        assert by_model == pytest.approx({name: by_bundle[name] for name in by_model}, rel=1e-5)
        prefixes = [f"{name}_" for name in names] if several else [""]
        measured = {f"{prefix}{metric}" for prefix in prefixes for metric in ("loss", "accuracy")}
        assert by_model.keys() == report.metrics.keys() == measured


@pytest.mark.parametrize("name", ["binary", "value"])
def test_evaluations_of_other_losses(name: str, tmp_path: Path) -> None:
    bundle = build(name, tmp_path / "bundle")
    dataset = colour_data(name)
    export(bundle, tmp_path / "m.onnx", dataset=dataset)
    by_bundle = evaluate(bundle, dataset, device="cpu")
    assert evaluate(tmp_path / "m.onnx", dataset, device="cpu") == pytest.approx(by_bundle, rel=1e-5)


def test_many_classes_count_the_top_five(tmp_path: Path) -> None:
    body = "p = GlobalAveragePool(x) f = Flatten(p) m = Gemm(f, w) y = Concat<axis = 1>(m, m, m, m, m)"
    model = _model(tmp_path / "m.onnx", body, output="float[N,20] y")
    split = Split(np.full((4, 3, 5, 5), 9, np.uint8), np.array([3, 7, 18, 0]))
    measured = evaluate(model, Dataset("d", split, split), device="cpu")
    assert measured["top5_accuracy"] == 0.5, "3, 7, 11, 15 and 19 are the largest, of equal ones the first"
    assert measured["accuracy"] == 0.25


def test_data_that_does_not_fit(models: dict[str, Path], tmp_path: Path) -> None:
    test = load("digits").test
    cases = {
        "the network's classes are 0 to 9": Split(test.images, test.labels + 1),
        "class indices": Split(test.images, test.labels.astype(np.float32)),
        r"\[C, H, W\] = \[1, 4, 4\]": Split(test.images[:, :, :4, :4], test.labels),
        "holds no images": Split(test.images[:0], test.labels[:0]),
    }
    for message, split in cases.items():
        for name in ("run", "plain", "embedded"):
            with pytest.raises(DataError, match=message):
                evaluate(models[name], Dataset("d", split, split), device="cpu")
    named = Dataset("d", test, test, tuple("abcdefghij"))
    scaled = Split(test.images.astype(np.float32) / 255, test.labels)
    for name in ("run", "plain"):
        with pytest.raises(DataError, match="class 0 is 'a' in the data and 'zero' in the network"):
            evaluate(models[name], named, device="cpu")
    with pytest.raises(DataError, match="this model takes pixels"):
        evaluate(models["embedded"], Dataset("d", scaled, scaled), device="cpu")
    pixels = Split(test.images.astype(np.float64), test.labels)
    for name in ("run", "plain"):
        with pytest.raises(DataError, match="floats of nothing but whole numbers"):
            evaluate(models[name], Dataset("d", pixels, pixels), device="cpu")
    with pytest.raises(CnncError, match="there is no such folder"):
        evaluate(models["plain"], tmp_path / "none")
    shutil.copy(models["plain"], tmp_path / "renamed")
    assert evaluate(tmp_path / "renamed", "digits", device="cpu")["accuracy"] > 0.8
