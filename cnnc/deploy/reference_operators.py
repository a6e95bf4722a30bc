"""Operators that onnx's ReferenceEvaluator lacks or has wrong, written from their definitions.

Each class says what was found wrong in onnx 1.23.2, beside ONNX Runtime 1.32. MaxPool, for one: where strides
are 1, onnx's takes pads for [begin, end] of one axis after the other, but they are all begins, then all ends.
An image of 4×5 that 3×3 pools with the pads [1, 0, 1, 0] is 3×4 there, and 4×3 on every other runtime.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from onnx.reference.op_run import OpRun

Array = np.ndarray[Any, Any]


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


class ConvTranspose(OpRun):
    """onnx's mixes up the channels of groups, and knows output_shape in some uses only."""

    op_domain = ""

    def _run(
        self,
        x: Array,
        w: Array,
        b: Array | None = None,
        *,
        auto_pad: str,
        dilations: list[int] | None,
        group: int,
        kernel_shape: list[int] | None,
        output_padding: list[int] | None,
        output_shape: list[int] | None,
        pads: list[int] | None,
        strides: list[int] | None,
    ) -> tuple[Array]:
        rank = x.ndim - 2
        kernel = w.shape[2:]
        strides, dilations = strides or [1] * rank, dilations or [1] * rank
        added = output_padding or [0] * rank
        pads = pads or [0] * 2 * rank
        if auto_pad.startswith("SAME") and not output_shape:
            spans = [d * (k - 1) + 1 for d, k in zip(dilations, kernel, strict=True)]
            output_shape = [
                (n - 1) * s + min(s, span) for n, s, span in zip(x.shape[2:], strides, spans, strict=True)
            ]
        batch, channels = x.shape[:2]
        split = x.reshape(batch, group, channels // group, *x.shape[2:])
        filters = w.reshape(group, channels // group, *w.shape[1:])
        sizes = [
            s * (n - 1) + more + d * (k - 1) + 1
            for s, n, more, d, k in zip(strides, x.shape[2:], added, dilations, kernel, strict=True)
        ]
        full = np.zeros((batch, group, w.shape[1], *sizes), x.dtype)
        for tap in np.ndindex(*kernel):
            place: tuple[slice, ...] = tuple(
                slice(d * t, d * t + s * (n - 1) + 1, s)
                for d, t, s, n in zip(dilations, tap, strides, x.shape[2:], strict=True)
            )
            full[:, :, :, *place] += np.einsum("ngc...,gcm->ngm...", split, filters[:, :, :, *tap])
        full = full.reshape(batch, -1, *sizes)
        for axis in range(rank):
            begin, wanted = pads[axis], sizes[axis] - pads[axis] - pads[axis + rank]
            if output_shape:
                wanted = output_shape[axis]
                total = max(sizes[axis] - wanted, 0)
                begin = total // 2 if auto_pad == "SAME_UPPER" else total - total // 2
            beyond = [(0, 0)] * full.ndim
            beyond[axis + 2] = (0, max(begin + wanted - sizes[axis], 0))
            full = np.pad(full, beyond).take(np.arange(begin, begin + wanted), axis + 2)
        return (full if b is None else full + b.reshape(-1, *[1] * rank),)


class LpPool(OpRun):
    """onnx's makes a p-norm of an average, whose counts differ at the end that ceil_mode adds."""

    op_domain = ""

    def _run(self, x: Array, *, p: int, ceil_mode: int, **window: Any) -> tuple[Array]:
        rank = len(window["kernel_shape"])
        strides = window["strides"] or [1] * rank
        dilations = window["dilations"] or [1] * rank
        pads = window["pads"] or [0] * 2 * rank
        powers = np.abs(x) ** p
        for axis, (k, s, d) in enumerate(zip(window["kernel_shape"], strides, dilations, strict=True)):
            size, span, begin, end = x.shape[axis + 2], d * (k - 1) + 1, pads[axis], pads[axis + rank]
            if window["auto_pad"].startswith("SAME"):
                total = max((-(-size // s) - 1) * s + span - size, 0)
                begin = total // 2 if window["auto_pad"] == "SAME_UPPER" else -(-total // 2)
                end = total - begin
            room = size + begin + end - span
            count = (-(-room // s) if ceil_mode else room // s) + 1
            beyond = [(0, 0)] * x.ndim
            beyond[axis + 2] = (begin, max((count - 1) * s + span - size - begin, 0))
            padded = np.pad(powers, beyond)
            taps = [padded.take(np.arange(count) * s + d * tap, axis + 2) for tap in range(k)]
            powers = np.sum(taps, axis=0)
        return (powers ** (1 / p),)


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
