"""Elementwise operators and activations."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import reduce
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor


def _reduced(function: Callable[[Tensor, Tensor], Tensor]) -> Callable[..., Tensor]:
    """A function of two tensors over any number of tensors and numbers."""
    return lambda *xs: reduce(function, (torch.as_tensor(x, dtype=xs[0].dtype) for x in xs))


def clip(x: Tensor, low: Tensor | float | None = None, high: Tensor | float | None = None) -> Tensor:
    """torch.clamp gives no gradient to a minimum above the maximum, and fails without both."""
    y = x if low is None else torch.maximum(x, torch.as_tensor(low, dtype=x.dtype))
    return y if high is None else torch.minimum(y, torch.as_tensor(high, dtype=x.dtype))


def prelu(x: Tensor, slope: Tensor) -> Tensor:
    return torch.where(x > 0, x, slope * x)


def shrink(x: Tensor, *, lambd: float = 0.5, bias: float = 0.0) -> Tensor:
    return torch.where(x < -lambd, x + bias, torch.where(x > lambd, x - bias, 0.0))


def elu(x: Tensor, *, alpha: float = 1.0) -> Tensor:
    return torch.where(x > 0, x, alpha * torch.expm1(x))


def selu(x: Tensor, *, alpha: float = 1.6732631921768188, gamma: float = 1.0507010221481323) -> Tensor:
    return gamma * elu(x, alpha=alpha)


SINGLE_PERCENT = float(np.float32(0.01))


def range_(start: Tensor, limit: float, delta: Tensor | float) -> Tensor:
    first, step = (float(value.detach() if isinstance(value, Tensor) else value) for value in (start, delta))
    count = math.ceil((limit - first) / step)
    return start + torch.arange(count) * delta


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "Identity": torch.clone,
    "Range": range_,
    "Neg": torch.neg,
    "Reciprocal": torch.reciprocal,
    "Exp": torch.exp,
    "Log": torch.log,
    "Sqrt": torch.sqrt,
    "Erf": torch.erf,
    "Abs": torch.abs,
    "Sin": torch.sin,
    "Cos": torch.cos,
    "Tan": torch.tan,
    "Asin": torch.asin,
    "Acos": torch.acos,
    "Atan": torch.atan,
    "Sinh": torch.sinh,
    "Cosh": torch.cosh,
    "Asinh": torch.asinh,
    "Acosh": torch.acosh,
    "Atanh": torch.atanh,
    "Relu": F.relu,
    "LeakyRelu": lambda x, alpha=SINGLE_PERCENT: F.leaky_relu(x, alpha),
    "PRelu": prelu,
    "ThresholdedRelu": lambda x, alpha=1.0: F.threshold(x, alpha, 0.0),
    "Shrink": shrink,
    "Elu": elu,
    "Selu": selu,
    "Sigmoid": torch.sigmoid,
    "HardSigmoid": lambda x, alpha=0.2, beta=0.5: (alpha * x + beta).clamp(0.0, 1.0),
    "HardSwish": F.hardswish,
    "Tanh": torch.tanh,
    "Softplus": F.softplus,
    "Softsign": F.softsign,
    "Mish": F.mish,
    "Softmax": lambda x, axis=-1: torch.softmax(x, axis),
    "LogSoftmax": lambda x, axis=-1: torch.log_softmax(x, axis),
    "Clip": clip,
    "Where": lambda condition, a, b: torch.where(torch.as_tensor(condition), a, b),
    "Add": torch.add,
    "Sub": torch.sub,
    "Mul": torch.mul,
    "Div": torch.div,
    "Mod": lambda a, b, fmod: torch.fmod(a, b),
    "Pow": lambda x, b: x ** (b if isinstance(b, Tensor) else torch.as_tensor(b)),
    "Sum": _reduced(torch.add),
    "Mean": lambda *xs: _reduced(torch.add)(*xs) / len(xs),
    "Max": _reduced(torch.maximum),
    "Min": _reduced(torch.minimum),
}
