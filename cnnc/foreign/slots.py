"""Where operators read parameters, and what hands them on."""

from __future__ import annotations

from cnnc.ir.network import Kind

SLOTS: dict[str, tuple[Kind | None, ...]] = {
    "Conv": (None, "weight", "bias"),
    "ConvTranspose": (None, "weight", "bias"),
    "Gemm": ("weight", "weight", "bias"),
    "MatMul": ("weight", "weight"),
    "Einsum": ("weight", "weight"),
    "Gather": ("weight",),
    "BatchNormalization": (None, "normalization", "normalization", "statistic", "statistic"),
    "InstanceNormalization": (None, "normalization", "normalization"),
    "LayerNormalization": (None, "normalization", "normalization"),
    "PRelu": (None, "normalization"),
}
"""For each input of an operator, the kind of a parameter that feeds it."""

PASSING = {"Cast", "Expand", "Flatten", "Reshape", "Squeeze", "Transpose", "Unsqueeze"}
"""Operators that a parameter may pass on its way to the one that uses it."""
