"""Initialisers: from a weight's fans to the description of a distribution that `cnnc.initial` draws.

The fans are the number of inputs that reach one output and of outputs that one input reaches; for a
convolution both count the kernel's area, as in Keras.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from cnnc.checks import one_of, real
from cnnc.errors import GraphFileError
from cnnc.source import user_line

Initializer = Callable[[int, int], dict[str, Any]]
"""From fan_in and fan_out to a description, see `cnnc.initial`."""


def glorot_uniform(fan_in: int, fan_out: int) -> dict[str, Any]:
    """U(-b, b) with b = √(6 / (fan_in + fan_out)); Glorot and Bengio, 2010."""
    return _uniform(math.sqrt(6.0 / (fan_in + fan_out)))


def glorot_normal(fan_in: int, fan_out: int) -> dict[str, Any]:
    """N(0, 2 / (fan_in + fan_out)); Glorot and Bengio, 2010."""
    return _normal(math.sqrt(2.0 / (fan_in + fan_out)))


def he_uniform(fan_in: int, fan_out: int) -> dict[str, Any]:
    """U(-b, b) with b = √(6 / fan_in), for ReLU networks; He et al., 2015."""
    return _uniform(math.sqrt(6.0 / fan_in))


def he_normal(fan_in: int, fan_out: int) -> dict[str, Any]:
    """N(0, 2 / fan_in), for ReLU networks; He et al., 2015."""
    return _normal(math.sqrt(2.0 / fan_in))


def zeros(fan_in: int, fan_out: int) -> dict[str, Any]:
    """All zeros."""
    return _constant(0.0)


def ones(fan_in: int, fan_out: int) -> dict[str, Any]:
    """All ones."""
    return _constant(1.0)


def constant(value: float) -> Initializer:
    """All equal to `value`."""
    number = real("constant", "value", value, least=-math.inf)
    return lambda fan_in, fan_out: _constant(number)


def uniform(bound: float) -> Initializer:
    """U(-bound, bound)."""
    number = real("uniform", "bound", bound)
    return lambda fan_in, fan_out: _uniform(number)


def normal(std: float) -> Initializer:
    """N(0, std²)."""
    number = real("normal", "std", std)
    return lambda fan_in, fan_out: _normal(number)


INITIALIZERS: dict[str, Initializer] = {
    rule.__name__: rule for rule in (glorot_uniform, glorot_normal, he_uniform, he_normal, zeros, ones)
}
"""The initialisers that a layer's `weight_init` and `bias_init` can name."""


def initializer(owner: str, field: str, rule: str | Initializer) -> Initializer:
    """The initialiser of this name, or `rule` itself where it is one. Raises GraphFileError."""
    if isinstance(rule, str):
        return INITIALIZERS[one_of(owner, field, rule, INITIALIZERS)]
    if not callable(rule):
        raise GraphFileError(
            f"{owner}: {field} must be an initialiser or the name of one, not {rule!r}.",
            where=user_line(),
            hint=f"Known: {', '.join(INITIALIZERS)}.",
        )
    return rule


def _uniform(bound: float) -> dict[str, Any]:
    return {"kind": "uniform", "bound": bound}


def _normal(std: float) -> dict[str, Any]:
    return {"kind": "normal", "std": std}


def _constant(value: float) -> dict[str, Any]:
    return {"kind": "constant", "value": value}
