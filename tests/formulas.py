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


def nadam(
    p: Array,
    g: Array,
    m: Array,
    v: Array,
    product: Array,
    rate: Array,
    c2: Array,
    mu: Array,
    next_mu: Array,
    *,
    beta1: float,
    beta2: float,
    epsilon: float,
    weight_decay: float,
) -> tuple[Array, ...]:
    g = g + weight_decay * p
    m, v, product = beta1 * m + (1 - beta1) * g, beta2 * v + (1 - beta2) * g**2, product * mu
    ahead = (1 - mu) / (1 - product) * g + next_mu / (1 - product * next_mu) * m
    return p - rate * ahead / (np.sqrt(v / c2) + epsilon), m, v, product


def lamb(
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
    decoupled_decay: float,
    adapt: bool,
) -> tuple[Array, ...]:
    m, v = beta1 * m + (1 - beta1) * g, beta2 * v + (1 - beta2) * g**2
    r = (m / c1) / (np.sqrt(v / c2) + epsilon) + decoupled_decay * p
    ours, theirs = np.linalg.norm(p), np.linalg.norm(r)
    trust = ours / theirs if adapt and ours > 0 and theirs > 0 else 1.0
    return p - rate * trust * r, m, v


def lion(
    p: Array, g: Array, m: Array, rate: Array, *, beta1: float, beta2: float, decoupled_decay: float
) -> tuple[Array, ...]:
    sign = np.sign(beta1 * m + (1 - beta1) * g)
    return p - rate * (sign + decoupled_decay * p), beta2 * m + (1 - beta2) * g


def rmsprop(
    p: Array,
    g: Array,
    v: Array,
    rate: Array,
    *buffer: Array,
    rho: float,
    momentum: float,
    epsilon: float,
    weight_decay: float,
) -> tuple[Array, ...]:
    g = g + weight_decay * p
    v = rho * v + (1 - rho) * g**2
    d = g / (np.sqrt(v) + epsilon)
    b = [momentum * each + d for each in buffer]
    return p - rate * (b[0] if b else d), v, *b


def centered_rmsprop(
    p: Array,
    g: Array,
    v: Array,
    m: Array,
    rate: Array,
    *buffer: Array,
    rho: float,
    momentum: float,
    epsilon: float,
    weight_decay: float,
) -> tuple[Array, ...]:
    g = g + weight_decay * p
    v, m = rho * v + (1 - rho) * g**2, rho * m + (1 - rho) * g
    d = g / (np.sqrt(np.maximum(v - m**2, 0)) + epsilon)
    b = [momentum * each + d for each in buffer]
    return p - rate * (b[0] if b else d), v, m, *b


def adagrad(
    p: Array, g: Array, v: Array, rate: Array, *, epsilon: float, weight_decay: float
) -> tuple[Array, ...]:
    g = g + weight_decay * p
    v = v + g**2
    return p - rate * g / (np.sqrt(v) + epsilon), v


def adadelta(
    p: Array, g: Array, v: Array, u: Array, rate: Array, *, rho: float, epsilon: float, weight_decay: float
) -> tuple[Array, ...]:
    g = g + weight_decay * p
    v = rho * v + (1 - rho) * g**2
    d = g * np.sqrt((u + epsilon) / (v + epsilon))
    return p - rate * d, v, rho * u + (1 - rho) * d**2


def adafactor(
    p: Array,
    g: Array,
    v: Array,
    rate: Array,
    share: Array,
    relative: Array,
    *columns: Array,
    epsilon: float,
    minimum: float,
    clip_threshold: float,
    decoupled_decay: float,
) -> tuple[Array, ...]:
    if columns:
        v = (1 - share) * v + share * (g**2).mean(axis=-1, keepdims=True)
        c = (1 - share) * columns[0] + share * (g**2).mean(axis=-2, keepdims=True)
        averages, whole = [v, c], v @ c / np.maximum(v.mean(axis=-2, keepdims=True), epsilon)
    else:
        averages = [whole] = [(1 - share) * v + share * g**2]
    d = g / np.sqrt(np.maximum(whole, epsilon**2))
    size = relative * np.maximum(minimum, np.sqrt((p**2).mean()))
    step = size / np.maximum(1.0, np.sqrt((d**2).mean()) / clip_threshold)
    return p - rate * decoupled_decay * p - step * d, *averages


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


def softmax_cross_entropy(
    logits: Array, labels: Array, *weights: Array, label_smoothing: float
) -> tuple[Array, ...]:
    shifted = logits - logits.max(axis=1, keepdims=True)
    log_probabilities = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    scaled = np.moveaxis(log_probabilities, 1, -1)
    scaled = np.moveaxis(scaled * weights[0], -1, 1) if weights else log_probabilities
    picked = np.take_along_axis(scaled, labels[:, None], axis=1)[:, 0]
    uniform = scaled.mean(axis=1)
    return -(1 - label_smoothing) * picked - label_smoothing * uniform, log_probabilities


FORMULAS: dict[str, Callable[..., tuple[Array, ...]]] = {
    "SGDUpdate": sgd,
    "MomentumUpdate": momentum,
    "AdamUpdate": adam,
    "NAdamUpdate": nadam,
    "LambUpdate": lamb,
    "LionUpdate": lion,
    "RMSpropUpdate": rmsprop,
    "CenteredRMSpropUpdate": centered_rmsprop,
    "AdagradUpdate": adagrad,
    "AdadeltaUpdate": adadelta,
    "AdafactorUpdate": adafactor,
    "BatchNormalizationTraining": batch_normalization,
    "SoftmaxCrossEntropy": softmax_cross_entropy,
}
