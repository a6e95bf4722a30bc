"""Small networks, built and trained: what export, verify and predict start from."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from cnnc import Program, Tensor, losses, metrics, nn, optim, schedules
from cnnc.bundle import Array, Bundle, write_bundle
from cnnc.compiler import Compiled, compile_program
from cnnc.data import Dataset, Split, load
from cnnc.runtime import Run, Settings, train

DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


def _branches(x: nn.Value) -> nn.Value:
    """Normalisation after a bias, two branches, overlapping pools, an asymmetric grouped dilated kernel."""
    y = nn.GELU()(nn.BatchNorm2d()(nn.Conv2d(8, 3, padding="same")(x)))
    z = nn.Conv2d(8, 1)(x)
    y = nn.Concat()(y + z, nn.LeakyReLU()(z))
    y = nn.Conv2d(8, (3, 2), (2, 1), padding=(1, 0), dilation=(1, 2), groups=4)(nn.MaxPool2d(3, 2, 1)(y))
    return nn.Dense(3)(nn.Flatten()(nn.Sigmoid()(y)))


_CONV = nn.Sequential(nn.Conv2d(4, 3, activation="relu"), nn.Flatten(), nn.Dense(3))
_COLOUR = Tensor("image", ("N", 3, 9, 7), mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4))
_BASE: dict[str, Any] = {
    "input": _COLOUR,
    "loss": losses.SoftmaxCrossEntropy(),
    "optimizer": optim.Adam(learning_rate=1e-3),
    "metrics": [metrics.Accuracy()],
}
PROGRAMS: dict[str, dict[str, Any]] = {
    "digits": {
        "input": Tensor("image", ("N", 1, 8, 8), mean=(0.3,), std=(0.4,)),
        "model": nn.Sequential(
            nn.Conv2d(8, 3, padding="same", bias=False),
            nn.BatchNorm2d(),
            nn.ReLU(),
            nn.Conv2d(16, 3, 2, 1, groups=4),
            nn.BatchNorm2d(),
            nn.ReLU(),
            nn.AvgPool2d(2),
            nn.Flatten(),
            nn.Dense(10),
        ),
        "optimizer": optim.Adam(learning_rate=0.01),
        "classes": DIGITS,
    },
    "branches": {"model": _branches, "optimizer": optim.AdamW(1e-3, weight_decay=0.1, clip_norm=0.5)},
    "average": {
        "model": nn.Sequential(
            nn.Conv2d(6, 3, 2, 1), nn.AvgPool2d(3, 2, 1), nn.Tanh(), nn.GlobalAvgPool2d(), nn.Dense(3)
        ),
        "optimizer": optim.SGD(schedules.Warmup(2, schedules.Cosine(0.1, 10)), momentum=0.9, nesterov=True),
    },
    "padded": {  # on one side only: there onnx's own MaxPool is wrong
        "model": nn.Sequential(
            nn.Conv2d(4, 3), nn.MaxPool2d((3, 2), 1, padding=(1, 0)), nn.Tanh(), nn.Flatten(), nn.Dense(3)
        )
    },
    "binary": {"model": _CONV, "loss": losses.BinaryCrossEntropy()},
    "value": {"model": _CONV, "loss": losses.MeanSquaredError(), "metrics": []},
    "smooth": {
        "model": _CONV,
        "loss": losses.SoftmaxCrossEntropy(0.1),
        "metrics": [metrics.Accuracy(), metrics.TopKAccuracy(2)],
    },
}


@cache
def compiled(name: str) -> Compiled:
    """One of `PROGRAMS`, compiled."""
    return compile_program(Program(**{**_BASE, **PROGRAMS[name]}, name=name))


def build(name: str, path: Path) -> Bundle:
    """The bundle of one of `PROGRAMS`, written to `path`."""
    return write_bundle(path, compiled(name).manifest, compiled(name).graphs, compiled(name).state)


def digits_run(folder: Path) -> Run:
    """A run of the digits network after two epochs, in `folder`."""
    bundle = build("digits", folder / "digits.bundle")
    train(bundle, load("digits"), Settings(epochs=2, device="cpu"), folder / "run")
    return Run.open(folder / "run")


def colour_data(kind: str, count: int = 40) -> Dataset:
    """Random images that fit the colour networks, with targets of this kind."""
    random = np.random.default_rng(7)
    images = random.integers(0, 256, (count, 3, 9, 7), dtype=np.uint8)
    labels: dict[str, Array] = {
        "class": random.integers(0, 3, count),
        "binary": random.integers(0, 2, (count, 3)).astype(np.float32),
        "value": random.standard_normal((count, 3)).astype(np.float32),
    }
    split = Split(images, labels[kind])
    return Dataset("colours", split, split)
