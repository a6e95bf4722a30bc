"""Initial values: a data description of a distribution, drawn the same everywhere.

A description is a small JSON object that travels in the bundle's manifest, so that a run can draw a new
start from another seed without the compiler::

    {"kind": "constant", "value": 0.0}
    {"kind": "uniform", "bound": 0.1}      U(-bound, bound)
    {"kind": "normal", "std": 0.1}         N(0, std²)
    {"kind": "stored"}                     the values lie in state.safetensors (weights of a foreign model)
    {"kind": "copy"}                       those of the parameter that the state belongs to

The stream is NumPy's Philox4x64 keyed by (seed, parameter name). Only its raw 64-bit words are used: they
are fixed by the algorithm, while the samplers of `numpy.random.Generator` may change between versions.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt


def uniforms(count: int, seed: int, name: str) -> npt.NDArray[np.float64]:
    """`count` uniform numbers in [0, 1), a function of (seed, name) alone."""
    key = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little")
    words = np.random.Philox(key=np.array([seed, key], dtype=np.uint64)).random_raw(count)
    return np.asarray((words >> np.uint64(11)) * 2.0**-53, dtype=np.float64)


def draw(
    initial: Mapping[str, Any], shape: Sequence[int], dtype: npt.DTypeLike, seed: int, name: str
) -> npt.NDArray[Any]:
    """The initial value of state `name`: `shape`, `dtype`, drawn as `initial` describes."""
    kind, count = initial["kind"], int(np.prod(shape, dtype=np.int64))
    if kind == "constant":
        return np.full(shape, initial["value"], dtype=dtype)
    if kind == "uniform":
        values = (2.0 * uniforms(count, seed, name) - 1.0) * initial["bound"]
    elif kind == "normal":  # Box and Muller, 1958; 1 - u is in (0, 1], so the logarithm is finite
        u = uniforms(2 * count, seed, name)
        values = np.sqrt(-2.0 * np.log(1.0 - u[:count])) * np.cos(2.0 * np.pi * u[count:]) * initial["std"]
    else:
        raise ValueError(f"initial value of '{name}' can't be drawn: kind '{kind}'")
    return np.asarray(values.reshape(shape), dtype=dtype)
