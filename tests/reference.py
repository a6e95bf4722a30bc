"""onnx's ReferenceEvaluator, with the operators right that onnx has wrong."""

from __future__ import annotations

import onnx
from onnx.reference import ReferenceEvaluator

from cnnc.deploy.reference_operators import OPERATORS


def evaluator(model: onnx.ModelProto) -> ReferenceEvaluator:
    """A ReferenceEvaluator that compares every value with its declared shape, too."""
    return ReferenceEvaluator(model, new_ops=[*OPERATORS], check_shape_annotations=True)
