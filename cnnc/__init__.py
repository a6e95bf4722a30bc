"""cnnc, the training compiler for ONNX.

It takes a CNN and generates its training step as an ordinary ONNX graph with explicit gradient nodes, which
stock ONNX Runtime executes. The names below are what a graph file needs; they load when first used, so that
``import cnnc`` itself imports neither onnx nor numpy.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from cnnc import augment, losses, metrics, nn, optim, schedules
    from cnnc.program import Program, Tensor

_MODULES = {"augment", "losses", "metrics", "nn", "optim", "schedules"}
_NAMES = {"Program": "cnnc.program", "Tensor": "cnnc.program"}

__all__ = ["Program", "Tensor", "__version__", "augment", "losses", "metrics", "nn", "optim", "schedules"]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f"cnnc.{name}")
    if name in _NAMES:
        return getattr(importlib.import_module(_NAMES[name]), name)
    raise AttributeError(f"module 'cnnc' has no attribute '{name}'")
