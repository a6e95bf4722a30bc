"""Each graph that comes with cnnc trains a few steps from the command line, and exports."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
from command_line import done

from cnnc.graph_file import known_graphs

pytestmark = pytest.mark.usefixtures("in_process")

IMAGES = {"digits": (8, 8), "mnist": (28, 28), "lenet5": (28, 28), "resnet_cifar": (32, 32, 3)}
OPTIONS = {"resnet_cifar": ("--set", "depth=20")}


@pytest.mark.parametrize("graph", IMAGES)
def test_it_trains_and_exports(graph: str, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    (tmp_path / "data").mkdir()
    for name, count in (("train", 40), ("test", 9)):
        images = random.integers(0, 256, (count, *IMAGES[graph]), dtype=np.uint8)
        np.savez(tmp_path / "data" / f"{name}.npz", x=images, y=random.integers(0, 10, count))
    run, model = tmp_path / "run", tmp_path / "model.onnx"
    options = ("--data", tmp_path / "data", "--epochs", 1, "--batch-size", 16, "--device", "cpu", "--no-tune")
    told = json.loads(
        done("train", graph, *OPTIONS.get(graph, ()), *options, "-o", run, "--json", "--quiet").out
    )
    assert told["steps"] == 3
    assert np.isfinite(told["train_loss"])
    done("export", run, "--data", tmp_path / "data", "-o", model)  # which compares it with the run
    session = ort.InferenceSession(model, providers=["CPUExecutionProvider"])
    channels = (*IMAGES[graph], 1)[2]
    batch = random.random((5, channels, *IMAGES[graph][:2]), dtype=np.float32)
    (probabilities,) = session.run(None, {session.get_inputs()[0].name: batch})
    assert probabilities.shape == (5, 10)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1.0, rtol=1e-5)


def test_all_of_them_are_tried() -> None:
    assert set(IMAGES) == set(known_graphs())
