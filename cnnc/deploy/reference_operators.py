"""Operators that onnx's ReferenceEvaluator lacks or has wrong, written from their definitions.

Each class says what was found wrong in onnx 1.23.2, beside ONNX Runtime 1.32.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from onnx.reference.op_run import OpRun

from cnnc.deploy.reference_windows import ConvTranspose, LpPool, MaxPool

Array = np.ndarray[Any, Any]


class Erf(OpRun):
    """onnx's rounds to float32, whatever its input is."""

    op_domain = ""

    def _run(self, x: Array) -> tuple[Array]:
        return (np.vectorize(math.erf, otypes=[x.dtype])(x),)


class GatherElements(OpRun):
    """onnx's knows axes of up to 64 elements where the axis is the first."""

    op_domain = ""

    def _run(self, x: Array, indices: Array, *, axis: int) -> tuple[Array]:
        axis %= x.ndim
        seen = tuple(slice(None if i == axis else size) for i, size in enumerate(indices.shape))
        return (np.take_along_axis(x[seen], indices, axis),)


class GlobalMaxPool(OpRun):
    """onnx's is right for two spatial axes only."""

    op_domain = ""

    def _run(self, x: Array) -> tuple[Array]:
        return (x.max(axis=tuple(range(2, x.ndim)), keepdims=True),)


class GlobalLpPool(OpRun):
    """onnx has none."""

    op_domain = ""

    def _run(self, x: Array, *, p: int) -> tuple[Array]:
        return ((np.abs(x) ** p).sum(axis=tuple(range(2, x.ndim)), keepdims=True) ** (1 / p),)


class Mean(OpRun):
    """onnx's adds in place to the first input, whatever shape the others broadcast to."""

    op_domain = ""

    def _run(self, *xs: Array) -> tuple[Array]:
        return (np.asarray(sum(xs[1:], start=xs[0]) / xs[0].dtype.type(len(xs))),)


class Pad(OpRun):
    """onnx's takes no negative pads, which cut off."""

    op_domain = ""

    def _run(
        self,
        x: Array,
        pads: Array,
        value: Array | None = None,
        axes: Array | None = None,
        *,
        mode: Any,
    ) -> tuple[Array]:
        chosen = range(x.ndim) if axes is None else [axis % x.ndim for axis in axes.tolist()]
        widths = [(0, 0)] * x.ndim
        for axis, begin, end in zip(chosen, pads[: len(chosen)], pads[len(chosen) :], strict=True):
            x = x.take(np.arange(max(-begin, 0), x.shape[axis] - max(-end, 0)), axis)
            widths[axis] = (max(begin, 0), max(end, 0))
        if mode == "constant":
            return (np.pad(x, widths, constant_values=0.0 if value is None else value.item()),)
        return (np.pad(x, widths, mode),)


class LogSoftmax(OpRun):
    """onnx's takes the logarithm of a softmax, which may have underflowed to 0."""

    op_domain = ""

    def _run(self, x: Array, *, axis: int) -> tuple[Array]:
        below = x - x.max(axis=axis, keepdims=True)
        return (below - np.log(np.exp(below).sum(axis=axis, keepdims=True)),)


class LRN(OpRun):
    """onnx's counts examples where it should count channels."""

    op_domain = ""

    def _run(self, x: Array, *, alpha: float, beta: float, bias: float, size: int) -> tuple[Array]:
        padded = np.pad(x**2, [(0, 0), ((size - 1) // 2, size // 2), (0, 0), (0, 0)])
        total = np.sum([padded[:, i : i + x.shape[1]] for i in range(size)], axis=0)
        return (x / (bias + float(alpha) / size * total) ** float(beta),)


class LpNormalization(OpRun):
    """onnx's forgets the absolute value."""

    op_domain = ""

    def _run(self, x: Array, *, axis: int, p: int) -> tuple[Array]:
        norm = np.linalg.norm(x, p, axis, keepdims=True)
        return (np.divide(x, norm, out=np.zeros_like(x), where=norm > 0),)


class GridSample(OpRun):
    """onnx's rounds coordinates to float32, and knows the modes by the names of later opsets."""

    op_domain = ""

    def _run(
        self, x: Array, grid: Array, *, mode: str, padding_mode: str, align_corners: int
    ) -> tuple[Array]:
        mode = {"linear": "bilinear"}.get(mode, mode)  # the default of later opsets
        taps = {"nearest": [0], "bilinear": [0, 1], "bicubic": [-1, 0, 1, 2]}[mode]
        sides = []
        for axis, size in enumerate(x.shape[2:]):
            unit = grid[..., 1 - axis] + 1
            point = unit / 2 * (size - 1) if align_corners else (unit * size - 1) / 2
            base = np.rint(point) if mode == "nearest" else np.floor(point)
            side = []
            for tap in taps:
                away, place = np.abs(point - base - tap), base + tap
                weight = {
                    "nearest": np.ones_like(away),
                    "bilinear": 1 - away,
                    "bicubic": np.where(
                        away <= 1,
                        (1.25 * away - 2.25) * away**2 + 1,
                        ((-0.75 * away + 3.75) * away - 6) * away + 3,
                    ),
                }[mode]
                if padding_mode == "zeros":
                    weight = weight * ((place >= 0) & (place < size))
                elif padding_mode == "reflection":
                    low, span = (0.0, size - 1) if align_corners else (-0.5, size)
                    away = np.abs(place - low) % (2 * span) if span else 0 * place
                    place = np.minimum(away, 2 * span - away) + low
                side.append((np.clip(place, 0, size - 1).astype(int), weight))
            sides.append(side)
        n = np.arange(len(x))[:, None, None]
        y = sum(
            x.transpose(0, 2, 3, 1)[n, row, column] * (down * across)[..., None]
            for row, down in sides[0]
            for column, across in sides[1]
        )
        return (np.moveaxis(y, -1, 1),)


OPERATORS: tuple[type[OpRun], ...] = (
    ConvTranspose,
    Erf,
    GatherElements,
    GlobalLpPool,
    GlobalMaxPool,
    GridSample,
    LRN,
    LogSoftmax,
    LpNormalization,
    LpPool,
    MaxPool,
    Mean,
    Pad,
)
"""For `ReferenceEvaluator(new_ops=…)`."""
