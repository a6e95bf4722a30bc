"""Names of classes that come with the data: a run keeps them, and so does all that is made of it."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from command_line import SMALL, call, check_refused, done
from PIL import Image

from cnnc import Program, Tensor, losses, nn, optim
from cnnc.bundle import Bundle, Manifest
from cnnc.compiler import compile_program
from cnnc.data.class_names import check_names, label_names, named
from cnnc.deploy.trained import Trained
from cnnc.errors import DataError
from cnnc.runtime import Run

NAMES = ("ant", "Bär, groß", "cat")
GRAPH = SMALL.replace("nn.Dense(10)", "nn.Dense(3)").replace(
    "[metrics.Accuracy()]", "[metrics.Accuracy(), metrics.ConfusionMatrix()]"
)


def _pictures(folder: Path, names: dict[str, int], count: int = 12) -> Path:
    """Image folders: where a bright bar stands says the number of a name's class."""
    rng = np.random.default_rng(0)
    for name, number in names.items():
        for split in ("train", "test"):
            (folder / split / name).mkdir(parents=True)
            for index in range(count):
                pixels = rng.integers(0, 60, (8, 8), np.uint8)
                pixels[:, 3 * number : 3 * number + 2] += 150
                Image.fromarray(pixels).save(folder / split / name / f"{index}.png")
    return folder


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``data``, a run that was trained on it (``run``), and what it exports (``model.onnx``)."""
    folder = tmp_path_factory.mktemp("names")
    _pictures(folder / "data", {name: number for number, name in enumerate(NAMES)})
    (folder / "graph.py").write_text(GRAPH)
    settings = ["--data", folder / "data", "--epochs", 15, "--batch-size", 6]
    done("train", folder / "graph.py", *settings, "-o", folder / "run", "-q")
    done("export", folder / "run", "-o", folder / "model.onnx")
    return folder


def test_the_exported_model_and_predictions_have_the_names(place: Path) -> None:
    found = {entry.key: entry.value for entry in onnx.load(place / "model.onnx").metadata_props}
    assert json.loads(found["cnnc.classes"]) == list(NAMES)
    for model in ("run", "model.onnx"):
        for name in NAMES:
            image = place / "data" / "test" / name / "0.png"
            assert done("predict", place / model, image).out.startswith(f"{image}: {name} ")


def test_the_bundle_stays_as_it_was_built(place: Path) -> None:
    assert Bundle.open(place / "run" / "bundle").manifest.classes == ()
    run = Run.open(place / "run")
    assert (run.bundle.manifest.classes, run.manifest.classes) == ((), NAMES)
    assert Trained.open(place / "run").bundle.manifest == run.manifest
    assert replace(run.manifest, classes=()) == run.bundle.manifest


def test_confusion_matrices_have_the_names(place: Path) -> None:
    header, *rows = (place / "run" / "confusion_matrix.csv").read_text().splitlines()
    assert header == 'label,ant,"Bär, groß",cat'
    assert len(rows) == 3
    report = (place / "run" / "report.html").read_text()
    assert all(name in report for name in NAMES)


@pytest.mark.parametrize("model", ["run", "model.onnx"])
@pytest.mark.parametrize(
    ("names", "said"),
    [
        ({"ant": 0, "beetle": 1, "cat": 2}, "the network knows no class 'beetle'"),
        ({"aardvark": 2, "ant": 0, "Bär, groß": 1, "cat": 2}, "the network knows no class 'aardvark'"),
    ],
    ids=["renamed", "more"],
)
def test_other_names_are_refused(
    model: str, names: dict[str, int], said: str, place: Path, tmp_path: Path
) -> None:
    data = _pictures(tmp_path / "data", names, 2)
    check_refused(["eval", place / model, "--data", data], [str(data), said], tmp_path)
    if model == "run":
        check_refused(["export", place / model, "-o", tmp_path / "a.onnx", "--data", data], [said], tmp_path)
        check_refused(["report", place / model, "--data", data], [said], tmp_path)
        assert f"fault: {data}: {said}" in call("data", "check", data, "--for", place / model).out


@pytest.mark.parametrize("model", ["run", "model.onnx"])
def test_fewer_names_keep_their_numbers(model: str, place: Path, tmp_path: Path) -> None:
    data = _pictures(tmp_path / "data", {"cat": 2, "Bär, groß": 1})
    assert json.loads(done("eval", place / model, "--data", data, "--json").out)["test_accuracy"] > 0.9


def test_names_that_the_graph_file_gives_come_first(place: Path, tmp_path: Path) -> None:
    (tmp_path / "graph.py").write_text(GRAPH.replace("loss=", f"classes={NAMES[::-1]!r},\n        loss="))
    done(
        "train", tmp_path / "graph.py", "--data", place / "data", "-o", tmp_path / "run", "--epochs", 1, "-q"
    )
    assert Trained.open(tmp_path / "run").bundle.manifest.classes == NAMES[::-1]


def test_the_named_data_sets_name_their_classes(tmp_path: Path) -> None:
    (tmp_path / "graph.py").write_text(SMALL)
    done("train", tmp_path / "graph.py", "--data", "digits", "-o", tmp_path / "run", "--limit", 40, "-q")
    done("export", tmp_path / "run", "-o", tmp_path / "digits.onnx")
    found = {entry.key: entry.value for entry in onnx.load(tmp_path / "digits.onnx").metadata_props}
    assert json.loads(found["cnnc.classes"]) == [str(digit) for digit in range(10)]


def test_a_name_of_any_bytes(place: Path, tmp_path: Path) -> None:
    """A folder's name need not be UTF-8: the run trains, reports and exports all the same."""
    strange = b"\xff\xfe".decode("utf-8", "surrogateescape")
    shutil.copytree(place / "data", tmp_path / "data")
    for split in ("train", "test"):
        (tmp_path / "data" / split / "ant").rename(tmp_path / "data" / split / strange)
    arguments = ["--data", tmp_path / "data", "-o", tmp_path / "run", "--epochs", 1, "-q"]
    assert "could not be made" not in done("train", place / "graph.py", *arguments).err
    assert b"\xff\xfe" in (tmp_path / "run" / "confusion_matrix.csv").read_bytes()
    done("export", tmp_path / "run", "-o", tmp_path / "model.onnx")
    for model in ("run", "model.onnx"):
        done("eval", tmp_path / model, "--data", tmp_path / "data")
        done("predict", tmp_path / model, tmp_path / "data" / "test" / "cat" / "0.png")


def _manifest(model: Any, loss: Any, **fields: Any) -> Manifest:
    """That of a network of pictures 4×4."""
    image = Tensor("image", ("N", 1, 4, 4))
    program = Program(input=image, model=model, loss=loss, optimizer=optim.SGD(0.1), **fields)
    return compile_program(program).manifest


def _two(x: nn.Value) -> dict[str, nn.Value]:
    """Classes of a picture, twice: three, and room for five."""
    flat = nn.Flatten()(x)
    return {"kind": nn.Dense(3)(flat), "wide": nn.Dense(5)(flat)}


def test_every_output_of_the_labels_is_named() -> None:
    """Several heads: those without names that tell the labels; one with room has numbers for the rest."""
    entropy = losses.SoftmaxCrossEntropy()
    loss = {"kind": entropy, "wide": losses.Weighted(entropy, 0.5, target="kind")}
    manifest = _manifest(_two, loss)
    assert {head.target.array for head in manifest.heads} == {"y"}
    assert [head.classes for head in named(manifest, NAMES).heads] == [NAMES, (*NAMES, "3", "4")]
    given = _manifest(_two, loss, classes={"wide": list("abcde")})
    assert [head.classes for head in named(given, NAMES).heads] == [NAMES, tuple("abcde")]
    assert label_names(given.heads) == tuple("abcde")


def test_outputs_of_other_targets_stay_nameless() -> None:
    """Arrays beside the labels, and numbers, are no classes that the data names."""
    entropy = losses.SoftmaxCrossEntropy()
    manifest = _manifest(_two, {"kind": entropy, "wide": entropy})
    assert {head.target.array for head in manifest.heads} == {"y_kind", "y_wide"}
    assert named(manifest, NAMES) == manifest
    dense = nn.Sequential(nn.Flatten(), nn.Dense(3))
    for loss in (losses.MeanSquaredError(), losses.BinaryCrossEntropy()):
        manifest = _manifest(dense, loss)
        assert named(manifest, NAMES) == manifest


def test_labels_of_pixels_are_named() -> None:
    manifest = _manifest(nn.Sequential(nn.Conv2d(3, 1)), losses.PixelCrossEntropy())
    assert named(manifest, NAMES).classes == NAMES


@pytest.mark.parametrize(
    "classes",
    [(), ("a", "b", "c", "d"), ("a", "2")],
    ids=["none", "too many", "a number that another output has"],
)
def test_names_that_do_not_fit(classes: tuple[str, ...]) -> None:
    manifest = _manifest(nn.Sequential(nn.Flatten(), nn.Dense(3)), losses.SoftmaxCrossEntropy())
    assert named(manifest, classes) == manifest


@pytest.mark.parametrize(
    ("data", "network", "said"),
    [
        (("a", "b"), ("a", "b"), ""),
        (("a", "b"), ("a", "b", "2"), ""),
        (("0", "1"), ("a", "b", "c"), ""),
        (("a", "b"), (), ""),
        (("a", "b"), ("a", "b", "c"), "the data has 2 classes, the network 3"),
        (("b", "a"), ("a", "b"), "class 0 is 'b' in the data and 'a' in the network"),
        (("b", "a"), ("a", "b", "2"), "class 0 is 'b' in the data and 'a' in the network"),
    ],
)
def test_when_names_agree(data: tuple[str, ...], network: tuple[str, ...], said: str) -> None:
    if not said:
        check_names(data, network, "data")
        return
    with pytest.raises(DataError, match=said):
        check_names(data, network, "data")
