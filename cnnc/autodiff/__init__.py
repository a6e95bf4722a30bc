"""Reverse-mode differentiation of ONNX graphs: the engine, and one table of rules."""

import cnnc.autodiff.rules  # noqa: F401  (fills the table)
from cnnc.autodiff.engine import gradients
from cnnc.autodiff.rule import RULES, Context, rule
from cnnc.autodiff.rules.constant import WITHOUT_GRADIENT

__all__ = ["RULES", "WITHOUT_GRADIENT", "Context", "gradients", "rule"]
