"""Gradient rules by family. Importing this package fills `cnnc.autodiff.RULES`."""

from cnnc.autodiff.rules import (
    convolution,
    elementwise,
    loss,
    matmul,
    normalization,
    pooling,
    reduction,
    shape,
)

__all__ = ["convolution", "elementwise", "loss", "matmul", "normalization", "pooling", "reduction", "shape"]
