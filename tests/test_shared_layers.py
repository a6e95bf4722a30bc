"""A layer that is called twice: its gradients add up, its running statistics move twice."""

from __future__ import annotations

import numpy as np
import onnxruntime
from traced import Array

from cnnc import Program, Tensor, losses, nn, optim
from cnnc.compiler import compile_program

RATE = 0.5


def one_step(model: nn.Sequential, x: Array, target: Array) -> tuple[dict[str, Array], dict[str, Array]]:
    """The state before and after one step of gradient descent on the squared error."""
    program = Program(Tensor("x", ("N", *x.shape[1:])), model, losses.MeanSquaredError(), optim.SGD(RATE))
    compiled = compile_program(program)
    session = onnxruntime.InferenceSession(compiled.graphs["train.onnx"], providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    feeds = {**compiled.state, "x": x, "target": target, "lr_scale": np.array(1, np.float32)}
    after = dict(zip(names, session.run(None, feeds), strict=True))
    return compiled.state, {name: after[f"next/{name}"] for name in compiled.state}


def test_gradients_of_both_calls_add_up() -> None:
    """For y = w·w·x and loss (y - t)² the slope is 4·w·x·(y - t)."""
    dense = nn.Dense(1, bias=False)
    x, t = np.array([[1.5]], np.float32), np.array([[2.0]], np.float32)
    before, after = one_step(nn.Sequential(dense, dense), x, t)
    w = before["dense1.weight"]
    np.testing.assert_allclose(after["dense1.weight"], w - RATE * 4 * w * x * (w * w * x - t), rtol=1e-6)


def test_running_statistics_move_twice() -> None:
    """The second call sees what the first has normalised: mean 0 and variance 1."""
    norm = nn.BatchNorm2d(momentum=0.75)
    x = np.random.default_rng(0).standard_normal((4, 2, 3, 3)).astype(np.float32) * 3 + 5
    _, after = one_step(nn.Sequential(norm, norm), x, np.zeros_like(x))
    mean, variance = x.mean((0, 2, 3)), x.var((0, 2, 3))
    np.testing.assert_allclose(after["bn1.running_mean"], 0.25 * mean * 0.75, rtol=1e-5, atol=1e-6)
    expected = (0.75 + 0.25 * variance) * 0.75 + 0.25
    np.testing.assert_allclose(after["bn1.running_var"], expected, rtol=1e-5)
