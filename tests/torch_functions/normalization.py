"""Normalisation."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

EPSILON = float(np.float32(1e-5))


def batch_normalization(
    x: Tensor,
    scale: Tensor,
    bias: Tensor,
    mean: Tensor,
    var: Tensor,
    *,
    epsilon: float = EPSILON,
    training_mode: int = 0,
    momentum: float = 0.9,
) -> Tensor:
    """PyTorch's own has no gradient for the statistics."""
    if training_mode:
        return batch_normalization_training(x, scale, bias, mean, var, epsilon=epsilon, momentum=momentum)
    mean, var, scale, bias = (each.reshape(-1, *[1] * (x.ndim - 2)) for each in (mean, var, scale, bias))
    return (x - mean) / torch.sqrt(var + epsilon) * scale + bias


def batch_normalization_training(
    x: Tensor, scale: Tensor, bias: Tensor, _mean: Tensor, _var: Tensor, *, epsilon: float, momentum: float
) -> Tensor:
    return F.batch_norm(x, None, None, scale, bias, training=True, eps=epsilon)


def layer_normalization(
    x: Tensor, scale: Tensor, bias: Tensor | float = 0.0, *, axis: int = -1, epsilon: float = EPSILON
) -> Tensor:
    shape = x.shape[axis % x.ndim :]
    return F.layer_norm(x, shape, eps=epsilon) * scale + bias


def local_response_normalization(
    x: Tensor, *, size: int, alpha: float = 1e-4, beta: float = 0.75, bias: float = 1.0
) -> Tensor:
    return F.local_response_norm(x, size, alpha, beta, bias)


FUNCTIONS: dict[str, Callable[..., Tensor]] = {
    "BatchNormalization": batch_normalization,
    "BatchNormalizationTraining": batch_normalization_training,
    "InstanceNormalization": lambda x, scale, bias, epsilon: F.instance_norm(
        x, weight=scale, bias=bias, eps=epsilon
    ),
    "LayerNormalization": layer_normalization,
    "LpNormalization": lambda x, p=2, axis=-1: F.normalize(x, p, axis),
    "LRN": local_response_normalization,
}
