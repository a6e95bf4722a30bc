"""Models exported by PyTorch train as PyTorch trains them."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from foreign_models import inference, trainer

from cnnc.foreign.training import Wishes, compile_model

torch = pytest.importorskip("torch", reason="PyTorch exports the models and is the oracle (extra [oracle])")
torch_models = pytest.importorskip("torch_models", reason="needs PyTorch")
pytestmark = pytest.mark.oracle

RATE, STEPS, BATCH = 0.05, 10, 4
VALUES = {"encoder_decoder"}
"""Networks that are trained on values, not on classes."""


def _export(name: str, path: Path, *, dynamo: bool, training: bool) -> Any:
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    model = torch_models.make(name)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # both exporters warn of their own insides
        torch_models.export(model, path, dynamo=dynamo, training=training)
    return model


def _batch(name: str, step: int) -> tuple[Any, Any]:
    random = np.random.default_rng(step)
    shape = (BATCH, 3, torch_models.SIZE, torch_models.SIZE)
    image = random.standard_normal(shape).astype(np.float32)
    if name in VALUES:
        return image, np.tanh(image)
    return image, random.integers(0, 5, BATCH)


def _loss(name: str, output: Any, target: Any) -> Any:
    if name in VALUES:
        return torch.nn.functional.mse_loss(output, target)
    if name == "dilated":  # its softmax is part of our loss
        return torch.nn.functional.nll_loss(torch.log(output), target)
    return torch.nn.functional.cross_entropy(output, target)


@pytest.mark.parametrize("dynamo", [False, True], ids=["torchscript", "dynamo"])
@pytest.mark.parametrize("name", torch_models.MODELS)
def test_ten_steps_follow_pytorch(name: str, dynamo: bool, tmp_path: Path) -> None:
    path = tmp_path / f"{name}.onnx"
    model = _export(name, path, dynamo=dynamo, training=True)
    compiled, _ = compile_model(path, Wishes(optimizer="sgd", lr=RATE))
    step = trainer(compiled)
    peer = torch.optim.SGD(model.parameters(), lr=RATE)
    state = dict(compiled.state)
    for number in range(STEPS):
        image, target = _batch(name, number)
        outputs, state = step(state, image, target)
        peer.zero_grad()
        loss = _loss(name, model(torch.tensor(image)), torch.tensor(target))
        loss.backward()
        peer.step()
        assert outputs["loss"] == pytest.approx(loss.item(), rel=1e-3), number
    for parameter, value in model.named_parameters():
        if parameter in state and state[parameter].shape == value.shape:
            np.testing.assert_allclose(state[parameter], value.detach(), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("training", [False, True], ids=["inference", "training"])
@pytest.mark.parametrize("dynamo", [False, True], ids=["torchscript", "dynamo"])
@pytest.mark.parametrize("name", torch_models.MODELS)
def test_inference_is_the_source(name: str, dynamo: bool, training: bool, tmp_path: Path) -> None:
    path = tmp_path / f"{name}.onnx"
    model = _export(name, path, dynamo=dynamo, training=training)
    compiled, _ = compile_model(path)
    image, _ = _batch(name, 0)
    with torch.no_grad():
        expected = model.eval()(torch.tensor(image))
    if name not in VALUES | {"dilated"}:
        expected = torch.softmax(expected, 1)
    np.testing.assert_allclose(inference(compiled)(image), expected, rtol=1e-4, atol=1e-5)
