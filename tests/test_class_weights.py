"""``--class-weights``: the formula, the loss that comes of it, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import SMALL, call, contents, done
from foreign_models import classifier, save, session
from wild import folders

from cnnc import Program, Tensor, losses, nn, optim
from cnnc.bundle import Bundle
from cnnc.class_weights import ClassWeights
from cnnc.compiler import compile_program
from cnnc.data import load
from cnnc.data.parts import Share
from cnnc.errors import UsageError

pytestmark = pytest.mark.usefixtures("in_process")

RNG = np.random.default_rng(0)
COUNTS = (12, 6, 3, 2, 1)
LABELS = RNG.permutation(np.repeat(np.arange(5), COUNTS))
IMAGES = RNG.standard_normal((24, 3, 8, 8)).astype(np.float32)
BALANCED = [24 / (5 * count) for count in COUNTS]
"""compute_class_weight of scikit-learn 1.9.1 on LABELS: [0.4, 0.8, 1.6, 2.4, 4.8]."""


def data_set(folder: Path, labels: np.ndarray = LABELS) -> Path:
    folder.mkdir()
    for name in ("train", "test"):
        np.savez(folder / f"{name}.npz", x=IMAGES, y=labels)
    return folder


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return data_set(tmp_path / "data")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return save(classifier(), tmp_path / "m.onnx")


def weights_in(bundle: Path) -> Any:
    return Bundle.open(bundle).manifest.loss["class_weights"]


def loss_of(bundle: Path) -> tuple[float, Any]:
    """The bundle's loss on the data at its initial state, and its logits' probabilities."""
    opened = Bundle.open(bundle)
    feeds = {"x": IMAGES, **opened.initial_state(), "label": LABELS}
    evaluate = session(opened.graph("eval.onnx").read_bytes())
    names = [value.name for value in evaluate.get_outputs()]
    found = evaluate.run(None, {value.name: feeds[value.name] for value in evaluate.get_inputs()})
    sums = dict(zip(names, found, strict=True))
    probabilities = session(opened.graph("infer.onnx").read_bytes()).run(None, {"x": IMAGES})[0]
    return float(sums["metrics/loss/sum"] / sums["metrics/loss/count"]), probabilities


def test_balanced_by_the_training_labels(model: Path, data: Path, tmp_path: Path) -> None:
    np.savez(data / "test.npz", x=IMAGES[:2], y=LABELS[:2])  # which is not what counts
    done("build", model, "--class-weights", "balanced", "--data", data, "-o", tmp_path / "b")
    assert weights_in(tmp_path / "b") == pytest.approx(BALANCED)
    loss, probabilities = loss_of(tmp_path / "b")
    of_label = -np.log(probabilities[np.arange(24), LABELS].astype(np.float64))
    of_class = [of_label[k == LABELS].mean() for k in range(5)]  # all classes are equal
    assert loss == pytest.approx(np.mean(of_class), rel=1e-5)


@pytest.mark.oracle
@pytest.mark.parametrize("weights", ["balanced", "1,2,0.5,0,3e0"])
def test_the_loss_is_pytorchs(weights: str, model: Path, data: Path, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is the oracle of losses (extra [oracle])")
    done("build", model, "--class-weights", weights, "--data", data, "-o", tmp_path / "b")
    given = BALANCED if weights == "balanced" else [1, 2, 0.5, 0, 3]
    loss, probabilities = loss_of(tmp_path / "b")
    logits, weight = torch.tensor(np.log(probabilities)), torch.tensor(given, dtype=torch.float32)
    expected = torch.nn.functional.cross_entropy(logits, torch.tensor(LABELS), weight=weight)
    assert loss == pytest.approx(expected.item(), rel=1e-5)


def test_a_run_keeps_them_and_goes_on_with_them(data: Path, tmp_path: Path) -> None:
    source = tmp_path / "small.py"
    source.write_text(SMALL.replace('"N", 1,', '"N", 3,').replace("Dense(10)", "Dense(5)"))
    options = ("--data", data, "--batch-size", 8, "--device", "cpu", "--threads", 1, "-q", "--no-tune")
    run = tmp_path / "run"
    done("train", source, "--class-weights", "balanced", "-o", run, "--epochs", 1, *options)
    assert weights_in(run / "bundle") == pytest.approx(BALANCED)
    assert 'class_weights = "balanced"' in (run / "settings.toml").read_text()
    done("train", source, "--resume", run, "--epochs", 2, "-q")  # the same graph, with the run's weights
    done("train", run / "bundle", "--resume", run, "--epochs", 3, "-q")
    refused = call("train", "--resume", run, "--class-weights", "1,1,1,1,1")
    assert (refused.status, refused.out) == (2, "")
    assert "--class-weights 1,1,1,1,1: the run has balanced, and keeps it" in refused.err
    again = tmp_path / "again"
    done("train", "--config", run / "settings.toml", "-o", again, "-q")
    assert weights_in(again / "bundle") == weights_in(run / "bundle")


def test_only_what_is_trained_on_counts(tmp_path: Path) -> None:
    """Neither what is set aside for validation, nor what a limit leaves out; resuming finds the same."""
    source, run = tmp_path / "small.py", tmp_path / "run"
    source.write_text(SMALL)
    options = ("--data", "digits", "--limit", 400, "--validation", 0.25, "--seed", 3, "--threads", 1, "-q")
    done("train", source, "--class-weights", "balanced", "--epochs", 1, "-o", run, *options)
    train, held_out = Share(400, 0.25, 3).of(load("digits").train)
    assert held_out is not None
    assert (len(train), len(held_out)) == (300, 100)
    counts = np.bincount(train.labels, minlength=10)
    np.testing.assert_allclose(weights_in(run / "bundle"), 300 / (10 * counts))
    done("train", source, "--resume", run, "--epochs", 2, "-q")


def test_bad_images_do_not_count(tmp_path: Path) -> None:
    root = folders(tmp_path / "data")
    (root / "train" / "dog" / "bad.png").write_bytes(b"?")
    program = Program(
        Tensor("x", ("N", 3, 8, 8), resize="stretch"),
        nn.Sequential(nn.Flatten(), nn.Dense(2)),
        losses.SoftmaxCrossEntropy(),
        optim.SGD(0.1),
    )
    weights = ClassWeights("balanced", str(root), "skip")
    cats, dogs = (len(list((root / "train" / name).iterdir())) for name in ("cat", "dog"))
    expected = [(cats + dogs - 1) / (2 * count) for count in (cats, dogs - 1)]
    assert compile_program(program, revise=weights.revise).manifest.loss["class_weights"] == pytest.approx(
        expected
    )


def test_they_are_found_for_a_known_data_set(tmp_path: Path) -> None:
    done("build", "digits", "--class-weights", "balanced", "-o", tmp_path / "b")
    counts = np.bincount(load("digits").train.labels)
    np.testing.assert_allclose(weights_in(tmp_path / "b"), counts.sum() / (10 * counts))


def test_pixels_and_distributions(tmp_path: Path) -> None:
    """Ignored pixels count for nothing; a distribution counts by its shares."""
    pixels = RNG.integers(0, 3, (24, 8, 8))
    pixels[:, :3] = 255
    shares = RNG.dirichlet(np.ones(3), (24,)).astype(np.float32)
    dense = nn.Sequential(nn.Flatten(), nn.Dense(3))
    for labels, model, loss, counts in (
        (pixels, nn.Conv2d(3, 1), losses.PixelCrossEntropy(ignore_index=255), np.bincount(pixels.ravel())),
        (shares, dense, losses.DenseCrossEntropy(class_weights=(1, 2, 3)), shares.sum(axis=0)),
    ):
        program = Program(Tensor("x", ("N", 3, 8, 8)), model, loss, optim.SGD(0.1))
        where = str(data_set(tmp_path / type(loss).__name__, labels))
        manifest = compile_program(program, revise=ClassWeights("balanced", where).revise).manifest
        expected = counts[:3].sum() / (3 * counts[:3])
        np.testing.assert_allclose(manifest.loss["class_weights"], expected, rtol=1e-6)


def test_of_several_outputs_those_with_classes(tmp_path: Path) -> None:
    """Each balanced by its own targets."""
    folder, other = tmp_path / "data", RNG.permutation(np.repeat([0, 1], [16, 8]))
    folder.mkdir()
    for name in ("train", "test"):
        np.savez(folder / f"{name}.npz", x=IMAGES, y_kind=LABELS, y_side=other, y_size=IMAGES[:, 0, 0, :1])

    def network(x: nn.Value) -> dict[str, nn.Value]:
        flat = nn.Flatten()(x)
        return {name: nn.Dense(units)(flat) for name, units in (("kind", 5), ("side", 2), ("size", 1))}

    ce, mse = losses.SoftmaxCrossEntropy(), losses.MeanSquaredError()
    program = Program(
        Tensor("x", ("N", 3, 8, 8)), network, {"kind": ce, "side": 0.5 * ce, "size": mse}, optim.SGD(0.1)
    )
    manifest = compile_program(program, revise=ClassWeights("balanced", str(folder)).revise).manifest
    kind, side, size = (head.loss for head in manifest.heads)
    assert kind["class_weights"] == pytest.approx(BALANCED)
    assert side["class_weights"] == pytest.approx([24 / 32, 24 / 16])
    assert "class_weights" not in size
    with pytest.raises(UsageError, match="5 weights for 2 classes of the output 'side'"):
        compile_program(program, revise=ClassWeights("1,1,1,1,1").revise)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--class-weights", "1,2"), "--class-weights 1,2: 2 weights for 5 classes. Give one for each class"),
        (("--class-weights", "1,2,-1,1,1"), "a number of at least 0 for each class, not '1,2,-1,1,1'"),
        (("--class-weights", "1,2,nan,1,1"), "not '1,2,nan,1,1'"),
        (("--class-weights", "balance"), "takes 'balanced' or a number"),
        (("--class-weights", "0,0,0,0,0"), "all 0"),
        (("--class-weights", "balanced"), "balanced by which data?"),
        (
            ("--class-weights", "1,2,1,1,1", "--loss", "mse"),
            "MeanSquaredError takes none. There are weights in",
        ),
        (("--data", "digits"), "--data is for --class-weights balanced"),
    ],
)
def test_what_can_not_be(options: tuple[str, ...], words: str, model: Path, tmp_path: Path) -> None:
    before = contents(tmp_path)
    result = call("build", model, *options, "-o", tmp_path / "b")
    assert (result.status, result.out) == (2, "")
    assert words in result.err
    assert len(result.err.splitlines()) == 1
    assert contents(tmp_path) == before


def test_data_that_can_not_be(model: Path, tmp_path: Path) -> None:
    lacking = data_set(tmp_path / "lacking", np.where(LABELS == 3, 2, LABELS))
    result = call("build", model, "--class-weights", "balanced", "--data", lacking, "-o", tmp_path / "b")
    assert result.status == 1
    assert "class 3 has no training example, so --class-weights balanced can't weigh it" in result.err
    beyond = data_set(tmp_path / "beyond", LABELS + 1)
    result = call("build", model, "--class-weights", "balanced", "--data", beyond, "-o", tmp_path / "b")
    assert result.status == 1
    assert "the labels lie between 1 and 5" in result.err
    assert not (tmp_path / "b").exists()


def test_a_bundle_is_built_already(model: Path, data: Path, tmp_path: Path) -> None:
    bundle = tmp_path / "b"
    done("build", model, "-o", bundle)
    for further in ((), ("--overfit-one-batch",)):
        result = call("train", bundle, "--data", data, "--class-weights", "balanced", *further)
        assert (result.status, result.out) == (2, "")
        assert "class weights come too late" in result.err
        assert "Give --class-weights and --data to `cnnc build`." in result.err
