"""The random generator of training graphs in NumPy's int64, which runtimes' numbers are compared with."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
PRIME = 3329


def drawn(seed: int, step: int, stream: int, rows: int, columns: int, rounds: int = 3) -> Array:
    """The integers j of `uniform`, [rows, columns], in integer arithmetic."""
    digest = hashlib.shake_256(f"cnnc.random {stream}".encode()).digest(4 * 8 * 7 * 4)
    table = (np.frombuffer(digest, "<u4").astype(np.int64) % PRIME).reshape(4, 8, 7)
    remainders = [counter % modulus for counter in (seed, step) for modulus in (2047, 2045, 2043)]
    keys = (table @ [*remainders, 1] % PRIME)[..., None]
    index = np.arange(rows + columns)
    x = (index % PRIME + keys[0]) % PRIME
    for round_ in range(1, 1 + rounds):
        x = (x**3 + keys[round_] + (index // PRIME if round_ == 1 else 0)) % PRIME
    odd = (2 * (x % 128) - 127).astype(np.float64)
    products = odd[:, columns:].T @ (odd[:, :columns] * 2.0 ** np.arange(7, -1, -1)[:, None])
    return (products.astype(np.int64) >> 1 & 0x7FFF).astype(np.int16)


def chi_square(counts: Array) -> float:
    """Score of counts that all have the same expectation."""
    expected = counts.mean()
    return float(((counts - expected) ** 2).sum() / expected - counts.size) / np.sqrt(2 * counts.size)
