"""Gradient rules by family. Importing this package fills `cnnc.autodiff.RULES`."""

from cnnc.autodiff.rules import (
    activations,
    constant,
    convolution,
    einsum,
    elementwise,
    indexing,
    loss,
    matmul,
    normalization,
    pooling,
    reduction,
    resampling,
    shape,
    slicing,
    standard_losses,
    trigonometry,
)

__all__ = [
    "activations",
    "constant",
    "convolution",
    "einsum",
    "elementwise",
    "indexing",
    "loss",
    "matmul",
    "normalization",
    "pooling",
    "reduction",
    "resampling",
    "shape",
    "slicing",
    "standard_losses",
    "trigonometry",
]
