"""A segmenter, from program to run: labels for pixels with holes, several metrics of one confusion matrix."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from cnnc import Program, Tensor, losses, metrics, nn, optim
from cnnc.bundle import Bundle, write_bundle
from cnnc.compiler import compile_program
from cnnc.data import Dataset, Split, check, load
from cnnc.deploy.export import export
from cnnc.errors import DataError
from cnnc.runtime import Run, Settings, evaluate, resume, train
from cnnc.runtime.checkpoint import load_newest

IGNORED = 255


def _data(count: int, seed: int) -> Split:
    """Bright pixels are class 1, dark ones class 0, the edge is left out."""
    images = np.random.default_rng(seed).integers(0, 256, (count, 1, 6, 7), dtype=np.uint8)
    labels = (images[:, 0] > 127).astype(np.int64)
    labels[:, 0] = IGNORED
    return Split(images, labels)


DATA = Dataset("pixels", _data(50, 0), _data(30, 1))


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    program = Program(
        input=Tensor("image", ("N", 1, 6, 7)),
        model=nn.Sequential(nn.Conv2d(4, 3, padding="same", activation="relu"), nn.Conv2d(2, 1)),
        loss=losses.PixelCrossEntropy(class_weights=(1.0, 2.0), ignore_index=IGNORED),
        optimizer=optim.RMSprop(0.02),
        metrics=[metrics.Accuracy(), metrics.MeanIoU(), metrics.Recall(1), metrics.ConfusionMatrix()],
        classes=["dark", "bright"],
    )
    compiled = compile_program(program)
    return write_bundle(
        tmp_path_factory.mktemp("pixels") / "bundle", compiled.manifest, compiled.graphs, compiled.state
    )


def test_a_run_reports_scalars_and_writes_the_matrix(bundle: Bundle, tmp_path: Path) -> None:
    summary = train(bundle, DATA, Settings(epochs=12, batch_size=8, device="cpu"), tmp_path / "run")
    assert summary.test.keys() == {"loss", "accuracy", "mean_iou", "recall_1"}
    assert summary.test["mean_iou"] > 0.8
    with (tmp_path / "run" / "confusion_matrix.csv").open() as file:
        (corner, *names), *rows = csv.reader(file)
    assert (corner, names, [row[0] for row in rows]) == ("label", ["dark", "bright"], ["dark", "bright"])
    matrix = np.array([row[1:] for row in rows], int)
    assert matrix.sum() == 30 * 5 * 7
    assert matrix.trace() / matrix.sum() == pytest.approx(summary.test["accuracy"])
    assert matrix[1, 1] / matrix[1].sum() == pytest.approx(summary.test["recall_1"])
    one_by_one = evaluate(
        bundle, load_newest(tmp_path / "run", bundle.manifest)[0].state, DATA.test, batch_size=1
    )
    assert one_by_one == pytest.approx(summary.test, rel=1e-5)


def test_a_resumed_run_is_the_same(bundle: Bundle, tmp_path: Path) -> None:
    whole = train(bundle, DATA, Settings(epochs=2, batch_size=8, device="cpu"), tmp_path / "whole")
    train(bundle, DATA, Settings(epochs=1, batch_size=8, device="cpu"), tmp_path / "parts")
    assert resume(Run.open(tmp_path / "parts"), DATA, epochs=2).test == whole.test


def test_it_is_exported(bundle: Bundle, tmp_path: Path) -> None:
    report = export(bundle, tmp_path / "model.onnx", dataset=DATA)
    assert report.difference < 1e-5


@pytest.mark.parametrize(
    ("labels", "text"),
    [
        (np.zeros(50, np.int64), r"int64 \[50\], the network's loss takes class indices \[n, 6, 7\]"),
        (np.full((50, 6, 7), 2), r"lie between 2 and 2 \(image 0 has 2\), the network's classes are 0 to 1"),
        (np.full((50, 6, 7), IGNORED), "all labels are 255, which the loss ignores"),
    ],
)
def test_labels_that_do_not_fit(bundle: Bundle, labels: np.ndarray, text: str) -> None:
    with pytest.raises(DataError, match=text):
        check(Dataset("pixels", Split(DATA.train.images, labels), DATA.test), bundle.manifest)


def test_labels_of_pixels_come_from_archives(bundle: Bundle, tmp_path: Path) -> None:
    for name, split in (("train", DATA.train), ("test", DATA.test)):
        np.savez(tmp_path / f"{name}.npz", x=split.images, y=split.labels.astype(np.uint8))
    data = load(tmp_path)
    np.testing.assert_array_equal(data.train.labels, DATA.train.labels)
    check(data, bundle.manifest)
