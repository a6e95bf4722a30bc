"""Normalisation and losses."""

from __future__ import annotations

from collections.abc import Callable

import torch.nn.functional as F  # noqa: N812
from torch import Tensor


def batch_normalization(
    x: Tensor, scale: Tensor, bias: Tensor, mean: Tensor, var: Tensor, *, epsilon: float = 1e-5
) -> Tensor:
    return F.batch_norm(x, mean, var, scale, bias, training=False, eps=epsilon)


def batch_normalization_training(
    x: Tensor, scale: Tensor, bias: Tensor, _mean: Tensor, _var: Tensor, *, epsilon: float, momentum: float
) -> Tensor:
    return F.batch_norm(x, None, None, scale, bias, training=True, eps=epsilon)


def softmax_cross_entropy(
    logits: Tensor, labels: Tensor, weights: Tensor | None = None, *, label_smoothing: float
) -> Tensor:
    return F.cross_entropy(logits, labels, weights, reduction="none", label_smoothing=label_smoothing)


FUNCTIONS: dict[str, Callable[..., Tensor]] = {
    "BatchNormalization": batch_normalization,
    "BatchNormalizationTraining": batch_normalization_training,
    "SoftmaxCrossEntropy": softmax_cross_entropy,
}
