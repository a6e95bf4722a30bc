"""What the forward-type gradient ops compute, in NumPy: the oracle of their bodies' values."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


def sgd(p: Array, g: Array, rate: Array, *, weight_decay: float) -> tuple[Array, ...]:
    return (p - rate * (g + weight_decay * p),)


def momentum(
    p: Array, g: Array, v: Array, rate: Array, *, momentum: float, nesterov: int, weight_decay: float
) -> tuple[Array, ...]:
    g = g + weight_decay * p
    v = momentum * v + g
    return p - rate * (g + momentum * v if nesterov else v), v


def adam(
    p: Array,
    g: Array,
    m: Array,
    v: Array,
    rate: Array,
    c1: Array,
    c2: Array,
    *,
    beta1: float,
    beta2: float,
    epsilon: float,
    weight_decay: float,
    decoupled_decay: float,
) -> tuple[Array, ...]:
    p, g = p - rate * decoupled_decay * p, g + weight_decay * p
    m, v = beta1 * m + (1 - beta1) * g, beta2 * v + (1 - beta2) * g**2
    return p - rate * (m / c1) / (np.sqrt(v / c2) + epsilon), m, v


def batch_normalization(
    x: Array, scale: Array, bias: Array, mean: Array, var: Array, *, epsilon: float, momentum: float
) -> tuple[Array, ...]:
    channels_last = np.moveaxis(x, 1, -1)
    flat = channels_last.reshape(-1, x.shape[1])
    inv_std = 1 / np.sqrt(flat.var(axis=0) + epsilon)
    y = (channels_last - flat.mean(axis=0)) * inv_std * scale + bias
    return (
        np.moveaxis(y, -1, 1),
        momentum * mean + (1 - momentum) * flat.mean(axis=0),
        momentum * var + (1 - momentum) * flat.var(axis=0),
        flat.mean(axis=0),
        inv_std,
    )


def softmax_cross_entropy(logits: Array, labels: Array, *, label_smoothing: float) -> tuple[Array, ...]:
    shifted = logits - logits.max(axis=1, keepdims=True)
    log_probabilities = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    picked = np.take_along_axis(log_probabilities, labels[:, None], axis=1)[:, 0]
    uniform = log_probabilities.mean(axis=1)
    return -(1 - label_smoothing) * picked - label_smoothing * uniform, log_probabilities


FORMULAS: dict[str, Callable[..., tuple[Array, ...]]] = {
    "SGDUpdate": sgd,
    "MomentumUpdate": momentum,
    "AdamUpdate": adam,
    "BatchNormalizationTraining": batch_normalization,
    "SoftmaxCrossEntropy": softmax_cross_entropy,
}
