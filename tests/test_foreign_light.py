"""The light models inside the onnx package: known networks whose weights are all one number."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from foreign_models import inference, session, trainer

from cnnc.compiler import Compiled
from cnnc.foreign.coverage import coverage
from cnnc.foreign.training import Wishes, compile_model

FOLDER = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"
MODELS = sorted(path.stem for path in FOLDER.glob("*.onnx"))
FEW_STEPS, BATCH = 10, 2
RATES = {"light_vgg19": 1e-5}
"""Learning rates; nineteen layers without normalisation bear only a small one."""


def test_there_are_nine() -> None:
    assert len(MODELS) == 9


@pytest.mark.parametrize("name", MODELS)
def test_nothing_is_missing(name: str) -> None:
    report = coverage(FOLDER / f"{name}.onnx")
    assert report.ok, report.record()
    assert report.opset == 9


def _image(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((BATCH, 3, 224, 224)).astype(np.float32)


def _drawn(compiled: Compiled) -> dict[str, Any]:
    """The state with weights drawn as He et al., 2015: equal weights would only ever learn equal features."""
    random = np.random.default_rng(0)
    state = dict(compiled.state)
    for entry in compiled.manifest.entries("parameter"):
        if len(entry.shape) > 1:
            inputs = np.prod(entry.shape[1:])
            values = random.standard_normal(entry.shape, np.float32) * np.float32(np.sqrt(2 / inputs))
            state[entry.name] = values
        else:
            state[entry.name] = np.full(
                entry.shape, float("bn" in entry.name and "_b" not in entry.name[-4:])
            )
            state[entry.name] = state[entry.name].astype(np.float32)
    return state


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_they_train_and_infer(name: str) -> None:
    path = FOLDER / f"{name}.onnx"
    compiled, _ = compile_model(path, Wishes(optimizer="sgd", lr=RATES.get(name, 1e-3)))
    source, image = session(path.read_bytes()), _image(0)
    expected = [source.run(None, {source.get_inputs()[0].name: one[None]})[0] for one in image]
    logits = np.concatenate(expected).reshape(BATCH, -1)
    if name == "light_densenet121":  # it ends without the softmax that its loss includes
        logits = np.exp(logits - logits.max(1, keepdims=True))
        logits /= logits.sum(1, keepdims=True)
    np.testing.assert_allclose(inference(compiled)(image), logits, rtol=1e-4, atol=1e-6)
    step, state, labels = trainer(compiled), _drawn(compiled), np.array([3, 7])
    found = []
    for _ in range(FEW_STEPS):
        outputs, state = step(state, image, labels)
        found.append(float(outputs["loss"]))
    assert np.isfinite(found).all(), found
    assert np.mean(found[-3:]) < found[0], found
