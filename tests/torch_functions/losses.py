"""Losses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch.nn.functional as F  # noqa: N812
from torch import Tensor


def softmax_cross_entropy(
    logits: Tensor, labels: Tensor, weights: Tensor | None = None, *, label_smoothing: float
) -> Tensor:
    return F.cross_entropy(logits, labels, weights, reduction="none", label_smoothing=label_smoothing)


def standard(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def loss(x: Tensor, target: Tensor, weights: Tensor | None = None, **attributes: Any) -> Tensor:
        return function(x, target, weights, **attributes)

    return loss


FUNCTIONS: dict[str, Callable[..., Tensor]] = {
    "SoftmaxCrossEntropy": softmax_cross_entropy,
    "NegativeLogLikelihoodLoss": standard(F.nll_loss),
    "SoftmaxCrossEntropyLoss": standard(F.cross_entropy),
}
