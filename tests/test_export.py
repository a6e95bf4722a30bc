"""Export: one file that does what the run did, says what it needs, and is proved before it is written."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from built import DIGITS, PROGRAMS, build, colour_data, digits_run

from cnnc.bundle import Bundle
from cnnc.data import Dataset, Split, load, preprocess
from cnnc.deploy import export as export_module
from cnnc.deploy.export import export
from cnnc.deploy.folding import fold_batch_normalization
from cnnc.deploy.inference_graph import trained_model
from cnnc.deploy.proof import Proof, prove
from cnnc.deploy.trained import Trained, Which
from cnnc.errors import BundleError, CnncError, DataError, ModelError, ParityError, RunError, UsageError
from cnnc.runtime import InferSession, Run, evaluate


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return digits_run(tmp_path_factory.mktemp("digits"))


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return build("branches", tmp_path_factory.mktemp("branches") / "bundle")


def _metadata(path: Path) -> dict[str, Any]:
    values = {item.key: item.value for item in onnx.load(path).metadata_props}
    return {key: value if key == "cnnc.activation" else json.loads(value) for key, value in values.items()}


def test_a_run_becomes_one_standard_model(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "new" / "digits.onnx"
    report = export(run, path)
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    assert [(item.domain, item.version) for item in model.opset_import] == [("", 18)]
    assert model.ir_version == 8, "the lowest that has opset 18"
    assert not model.functions
    assert {node.domain for node in model.graph.node} == {""}
    operators = [node.op_type for node in model.graph.node]
    assert operators == ["Conv", "Relu", "Conv", "Relu", "AveragePool", "Flatten", "Gemm", "Softmax"]
    assert model.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "N"
    assert model.graph.output[0].type.tensor_type.shape.dim[0].dim_param == "N"
    assert _metadata(path) == {
        "cnnc.activation": "softmax",
        "cnnc.preprocessing": {"scale": 1 / 255, "mean": [0.3], "std": [0.4]},
        "cnnc.classes": list(DIGITS),
    }
    assert (report.path, report.size, report.nodes, report.folded) == (path, path.stat().st_size, 8, 2)
    assert (report.data, report.examples, report.notes) == ("the test split of digits", 360, ())
    assert report.difference < 1e-5
    assert report.metrics.keys() == {"loss", "accuracy"}
    for exported, trained in report.metrics.values():
        assert exported == pytest.approx(trained, rel=1e-5)
    assert report.metrics["accuracy"][1] > 0.8
    assert json.loads(json.dumps(report.record()))["metrics"]["accuracy"]["run"] > 0.8
    assert [entry.name for entry in path.parent.iterdir()] == ["digits.onnx"]


@pytest.mark.parametrize("which", ["best", "last"])
def test_the_state_is_the_one_asked_for(run: Run, tmp_path: Path, which: Which) -> None:
    report = export(run, tmp_path / "a.onnx", which=which)
    state = Trained.open(run, which).state
    measured = evaluate(run.bundle, state, load("digits").test, device="cpu")
    assert report.metrics["loss"][1] == pytest.approx(measured["loss"], rel=1e-6)


@pytest.mark.parametrize("count", [1, 5])
def test_outputs_are_those_of_the_network(run: Run, tmp_path: Path, count: int) -> None:
    export(run, tmp_path / "plain.onnx")
    export(run, tmp_path / "embedded.onnx", embed_preprocessing=True)
    pixels = load("digits").test.images[:count]
    manifest = run.bundle.manifest
    images = preprocess(pixels, manifest.preprocessing, manifest.input)
    expected = InferSession(trained_model(Trained.open(run)).SerializeToString(), "cpu")(images)
    plain = InferSession(tmp_path / "plain.onnx", "cpu")
    embedded = InferSession(tmp_path / "embedded.onnx", "cpu")
    assert (embedded.inputs[0].dtype, embedded.inputs[0].shape) == ("uint8", ("N", 1, 8, 8))
    np.testing.assert_allclose(plain(images), expected, atol=1e-6)
    np.testing.assert_array_equal(embedded(pixels), plain(images))
    assert _metadata(tmp_path / "embedded.onnx")["cnnc.preprocessing"] == {
        "scale": 1.0,
        "mean": [],
        "std": [],
    }


@pytest.mark.parametrize("name", PROGRAMS)
@pytest.mark.parametrize("embedded", [False, True])
def test_every_network_and_loss(name: str, embedded: bool, tmp_path: Path) -> None:
    bundle = build(name, tmp_path / "bundle")
    kind = bundle.manifest.target.kind
    dataset = load("digits") if name == "digits" else colour_data(kind)
    report = export(bundle, tmp_path / "a.onnx", dataset=dataset, embed_preprocessing=embedded)
    exact = {"binary": {"accuracy"}, "value": {"loss"}}
    names = {"loss", "accuracy"} if name != "smooth" else {"accuracy", "top2_accuracy"}
    assert report.metrics.keys() == exact.get(kind, names)
    assert _metadata(tmp_path / "a.onnx")["cnnc.activation"] == bundle.manifest.activation


def test_the_same_twice_gives_the_same_bytes(bundle: Bundle, tmp_path: Path) -> None:
    for name in ("a.onnx", "b.onnx"):
        export(bundle, tmp_path / name)
    assert (tmp_path / "a.onnx").read_bytes() == (tmp_path / "b.onnx").read_bytes()


@pytest.mark.parametrize(("opset", "ir_version"), [(15, 8), (17, 8), (20, 9), (22, 10)])
def test_another_opset(bundle: Bundle, tmp_path: Path, opset: int, ir_version: int) -> None:
    report = export(bundle, tmp_path / "a.onnx", opset=opset, embed_preprocessing=True)
    model = onnx.load(tmp_path / "a.onnx")
    assert (model.opset_import[0].version, model.ir_version, report.opset) == (opset, ir_version, opset)
    assert len(model.metadata_props) == 2
    assert report.difference < 1e-5


@pytest.mark.parametrize("opset", [-1, 0, 5, 99])
def test_an_opset_that_cannot_be(bundle: Bundle, tmp_path: Path, opset: int) -> None:
    with pytest.raises(ModelError, match=f"can't be converted from opset 18 to {opset}: ") as caught:
        export(bundle, tmp_path / "a.onnx", opset=opset)
    assert "\n" not in str(caught.value)
    assert not any(tmp_path.iterdir())


def test_a_bundle_is_proved_on_random_images(bundle: Bundle, tmp_path: Path) -> None:
    report = export(bundle, tmp_path / "a.onnx")
    assert (report.data, report.examples, report.metrics) == ("random images", 64, {})


def test_a_run_whose_data_has_gone(run: Run, tmp_path: Path) -> None:
    settings = dataclasses.replace(run.settings, data=str(tmp_path / "gone"))
    report = export(dataclasses.replace(run, settings=settings), tmp_path / "a.onnx")
    assert report.data == "random images"
    assert report.notes[0].startswith("The run's data is not at hand: ")


def test_data_that_is_scaled_cannot_prove_a_model_of_pixels(run: Run, tmp_path: Path) -> None:
    split = load("digits").test
    scaled = Split(split.images.astype(np.float32) / 255, split.labels)
    dataset = Dataset("scaled", scaled, scaled)
    assert export(run, tmp_path / "a.onnx", dataset=dataset).data == "the test split of scaled"
    report = export(run, tmp_path / "a.onnx", dataset=dataset, embed_preprocessing=True)
    assert report.data == "random images"
    assert "takes pixels" in report.notes[0]


def test_data_that_does_not_fit(bundle: Bundle, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="the network's input 'image' is"):
        export(bundle, tmp_path / "a.onnx", dataset=load("digits"))
    assert not any(tmp_path.iterdir())


def test_a_wrong_fold_is_found_out(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(graph: onnx.GraphProto) -> int:
        for node in graph.node:
            if node.op_type == "BatchNormalization":
                node.input[3], node.input[1] = node.input[1], node.input[3]
        return fold_batch_normalization(graph)

    monkeypatch.setattr(export_module, "fold_batch_normalization", wrong)
    with pytest.raises(ParityError, match="outputs differ from the trained network's"):
        export(run, tmp_path / "a.onnx")
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("proof", "agree"),
    [
        (Proof(1e-6, {"accuracy": (0.9, 0.9), "loss": (0.30001, 0.3)}), True),
        (Proof(1e-6, {"accuracy": (0.901, 0.9)}), True),
        (Proof(2e-4, {}), False),
        (Proof(float("nan"), {}), False),
        (Proof(0.0, {"accuracy": (0.902, 0.9)}), False),
        (Proof(0.0, {"accuracy": (float("nan"), 0.9)}), False),
        (Proof(0.0, {"loss": (0.3002, 0.3)}), False),
        (Proof(0.0, {"loss": (3001.0, 3000.0)}), False),
    ],
)
def test_what_counts_as_agreement(proof: Proof, agree: bool) -> None:
    if agree:
        proof.check(1000, 1e-4)
    else:
        with pytest.raises(ParityError, match="nothing was written"):
            proof.check(1000, 1e-4)


def test_a_loss_beyond_float32_proves_nothing(tmp_path: Path) -> None:
    """Where a probability is smaller than any float32, the outputs can't tell the loss."""
    bundle = build("average", tmp_path / "bundle")
    state = bundle.initial_state() | {"dense1.bias": np.array([300, 0, 0], dtype=np.float32)}
    trained = Trained(bundle, state)
    proof = prove(trained, trained_model(trained).SerializeToString(), colour_data("class").test)
    assert proof.metrics.keys() == {"accuracy"}


def test_what_is_there_already(bundle: Bundle, tmp_path: Path) -> None:
    model = tmp_path / "a.onnx"
    model.touch()
    export(bundle, model)
    before = model.read_bytes()
    export(bundle, model, embed_preprocessing=True)
    assert model.read_bytes() != before, "an earlier export is replaced"
    notes = tmp_path / "notes.txt"
    notes.write_text("mine")
    for path, message in (
        (notes, "it is no ONNX model"),
        (tmp_path, "this is a folder"),
        (notes / "a.onnx", "can't be written: File exists"),
        (Path("/dev/null"), "it is no ONNX model"),
    ):
        with pytest.raises(ModelError, match=message):
            export(bundle, path)
    assert notes.read_text() == "mine"


def _without(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


def _truncate(folder: Path) -> None:
    path = folder / "infer.onnx"
    path.write_bytes(path.read_bytes()[:-10])


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_without("infer.onnx"), "missing"),
        (_without("manifest.json"), "neither a run"),
        (_truncate, "truncated or altered"),
    ],
)
def test_damaged_bundles(
    bundle: Bundle, tmp_path: Path, damage: Callable[[Path], None], message: str
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(bundle.path, copy)
    damage(copy)
    with pytest.raises((BundleError, RunError), match=message):
        export(copy, tmp_path / "a.onnx")
    assert not (tmp_path / "a.onnx").exists()


def test_damaged_and_unfinished_runs(run: Run, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(run.path, copy)
    newest = copy / "last.safetensors"
    newest.write_bytes(newest.read_bytes()[:-1])
    with pytest.raises(RunError, match="no whole checkpoint"):
        export(copy, tmp_path / "b.onnx", which="last")
    export(copy, tmp_path / "a.onnx", which="best")
    (copy / "best.safetensors").unlink()
    with pytest.raises(RunError, match="best state is missing"):
        export(copy, tmp_path / "b.onnx")
    with pytest.raises(UsageError, match="Did you mean 'best'"):
        export(copy, tmp_path / "b.onnx", which="bst")  # type: ignore[arg-type]  # wrong on purpose
    for source, message in (
        (tmp_path / "none", "there is no such run or bundle"),
        (tmp_path / "a.onnx", "this is a file"),
        (tmp_path, "neither a run"),
    ):
        with pytest.raises(CnncError, match=message):
            export(source, tmp_path / "b.onnx")
    assert not (tmp_path / "b.onnx").exists()
