"""JAX: one jitted function for the whole step with Optax's optimizers, channels last as in Flax."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import lax

from benchmarks.architectures import (
    Adam,
    BatchNorm,
    Conv,
    Dense,
    Flatten,
    GlobalAvgPool,
    Layers,
    MaxPool,
    Momentum,
    ReLU,
    Residual,
)
from benchmarks.workers.layouts import channels_last_batches, channels_last_state
from benchmarks.workers.protocol import Array, Job, Step, serve

Tensor = jax.Array
Tensors = dict[str, Tensor]
STATISTICS = ("running_mean", "running_var")


def forward(layers: Layers, p: Tensors, x: Tensor, following: Tensors | None) -> Tensor:
    """Apply the layers. In training `following` takes up the next running statistics, else it is None."""
    for layer in layers:
        match layer:
            case Conv(_, _, _, stride, padding, groups, bias):
                x = lax.conv_general_dilated(
                    x,
                    p[f"{layer.name}.weight"],
                    (stride, stride),
                    ((padding, padding), (padding, padding)),
                    dimension_numbers=("NHWC", "HWIO", "NHWC"),
                    feature_group_count=groups,
                )
                x = x + p[f"{layer.name}.bias"] if bias else x
            case BatchNorm():
                x = normalise(layer.name, p, x, following)
            case Dense():
                x = x @ p[f"{layer.name}.weight"] + p[f"{layer.name}.bias"]
            case MaxPool(kernel, stride, padding):
                window, strides = (1, kernel, kernel, 1), (1, stride, stride, 1)
                pads = ((0, 0), (padding, padding), (padding, padding), (0, 0))
                x = lax.reduce_window(x, -jnp.inf, lax.max, window, strides, pads)
            case ReLU():
                x = jax.nn.relu(x)
            case GlobalAvgPool():
                x = x.mean((1, 2))
            case Flatten():
                x = x.reshape(len(x), -1)
            case Residual(body, shortcut):
                x = forward(body, p, x, following) + forward(shortcut, p, x, following)
    return x


def normalise(name: str, p: Tensors, x: Tensor, following: Tensors | None) -> Tensor:
    mean, var = (p[f"{name}.{statistic}"] for statistic in STATISTICS)
    if following is not None:
        old = mean, var
        mean, var = x.mean((0, 1, 2)), x.var((0, 1, 2))
        for statistic, before, now in zip(STATISTICS, old, (mean, var), strict=True):
            following[f"{name}.{statistic}"] = 0.9 * before + 0.1 * now
    scale = p[f"{name}.weight"] * lax.rsqrt(var + 1e-5)
    return x * scale + (p[f"{name}.bias"] - mean * scale)


def contestant(job: Job) -> Step:
    layers, optimizer = job.architecture.layers, make_optimizer(job.architecture.optimizer)
    batches = [(jnp.asarray(x), jnp.asarray(y)) for x, y in channels_last_batches(job)]
    state = {name: jnp.asarray(array) for name, array in channels_last_state(job).items()}
    statistics = {name: value for name, value in state.items() if name.endswith(STATISTICS)}
    parameters = {name: value for name, value in state.items() if name not in statistics}

    def mean_loss(parameters: Tensors, statistics: Tensors, x: Tensor, y: Tensor, training: bool) -> Any:
        following: Tensors | None = {} if training else None
        logits = forward(layers, parameters | statistics, x, following)
        return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean(), following

    @partial(jax.jit, donate_argnums=(0, 1, 2))
    def train(parameters: Tensors, statistics: Tensors, slots: Any, x: Tensor, y: Tensor) -> Any:
        gradient = jax.value_and_grad(mean_loss, has_aux=True)
        (loss, statistics), g = gradient(parameters, statistics, x, y, True)
        updates, slots = optimizer.update(g, slots, parameters)
        return optax.apply_updates(parameters, updates), statistics, slots, loss

    @jax.jit
    def evaluate(parameters: Tensors, statistics: Tensors, x: Tensor, y: Tensor) -> Tensor:
        return mean_loss(parameters, statistics, x, y, False)[0]

    @jax.jit
    def infer(state: Tensors, x: Tensor) -> Tensor:
        return jax.nn.softmax(forward(layers, state, x, None))

    now = (parameters, statistics, optimizer.init(parameters))

    def step(i: int) -> float | Array:
        nonlocal now
        x, y = batches[i % len(batches)]
        if job.task == "train":
            *now, loss = train(*now, x, y)
            return float(loss)
        if job.task == "evaluate":
            return float(evaluate(parameters, statistics, x, y))
        return jax.device_get(infer(state, x))

    return step


def make_optimizer(wanted: Adam | Momentum) -> optax.GradientTransformation:
    if isinstance(wanted, Adam):
        return optax.adam(wanted.rate, wanted.beta1, wanted.beta2, wanted.epsilon)
    return optax.sgd(wanted.rate, wanted.momentum)


if __name__ == "__main__":
    serve(contestant, "jax", "jaxlib", "optax", "numpy")
