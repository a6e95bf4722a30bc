"""onnx's ReferenceEvaluator, with the operators right that onnx 1.23 has wrong."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import onnx
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun
from operators import OPERATORS

Array = np.ndarray[Any, Any]


def evaluator(model: onnx.ModelProto) -> ReferenceEvaluator:
    """A ReferenceEvaluator that compares every value with its declared shape, too."""
    return ReferenceEvaluator(model, new_ops=[Erf, MaxPool, *OPERATORS], check_shape_annotations=True)


class Erf(OpRun):
    """onnx's rounds to float32, whatever its input is."""

    op_domain = ""

    def _run(self, x: Array) -> tuple[Array]:
        return (np.vectorize(math.erf, otypes=[x.dtype])(x),)


class MaxPool(OpRun):
    """onnx's takes pads in another order where strides are 1, and strided SAME_LOWER for another size."""

    op_domain = ""

    def _run(
        self,
        x: Array,
        *,
        kernel_shape: list[int],
        strides: list[int] | None,
        pads: list[int] | None,
        dilations: list[int] | None,
        auto_pad: str,
        ceil_mode: int,
        storage_order: int,
    ) -> tuple[Array, ...]:
        rank = len(kernel_shape)
        strides, dilations, pads = strides or [1] * rank, dilations or [1] * rank, pads or [0] * 2 * rank
        slices, padding = [], [(0, 0), (0, 0)]
        for axis, (size, k, s, d) in enumerate(
            zip(x.shape[2:], kernel_shape, strides, dilations, strict=True)
        ):
            span, begin, end = d * (k - 1) + 1, pads[axis], pads[axis + rank]
            if auto_pad.startswith("SAME"):
                total = max((-(-size // s) - 1) * s + span - size, 0)
                begin = total // 2 if auto_pad == "SAME_UPPER" else -(-total // 2)
                end = total - begin
            room = size + begin + end - span
            count = (-(-room // s) if ceil_mode else room // s) + 1
            count -= (count - 1) * s >= size + begin  # a window must begin before the end pad
            padding.append((begin, max((count - 1) * s + span - size - begin, 0)))
            slices.append([slice(d * tap, d * tap + s * (count - 1) + 1, s) for tap in range(k)])

        def taps(array: Array, fill: float) -> Array:
            padded = np.pad(array, padding, constant_values=fill)
            each = [
                tuple(s[i] for s, i in zip(slices, tap, strict=True)) for tap in np.ndindex(*kernel_shape)
            ]
            return np.stack([padded[(slice(None), slice(None), *place)] for place in each])

        values = taps(x, -np.inf)
        best = values.argmax(axis=0)[None]
        order = [0, 1, *reversed(range(2, x.ndim))] if storage_order else list(range(x.ndim))
        numbers = np.arange(x.size).reshape([x.shape[axis] for axis in order]).transpose(order)
        places = taps(numbers, -1)
        chosen = (np.take_along_axis(array, best, axis=0)[0] for array in (values, places))
        return tuple(chosen)[: len(self.output)]
