"""Sliding windows for onnx's ReferenceEvaluator, which has them wrong: see `reference_operators`.

MaxPool, for one: where strides are 1, onnx's takes pads for [begin, end] of one axis after the other, but
they are all begins, then all ends. An image of 4×5 that 3×3 pools with the pads [1, 0, 1, 0] is 3×4 there,
and 4×3 on every other runtime.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import numpy as np
from onnx.reference.op_run import OpRun

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Side:
    """A spatial axis of `size` elements, and the windows along it: `count` of them, after `begin` pads."""

    size: int
    kernel: int
    stride: int
    dilation: int
    begin: int
    count: int

    @property
    def padding(self) -> tuple[int, int]:
        """Pads before the first element, and as many behind the last as the last window sees."""
        last = (self.count - 1) * self.stride + self.dilation * (self.kernel - 1) + 1
        return self.begin, max(last - self.size - self.begin, 0)

    @property
    def taps(self) -> list[slice]:
        """For each element of the window, where the padded axis has it."""
        first = (self.dilation * tap for tap in range(self.kernel))
        return [slice(at, at + self.stride * (self.count - 1) + 1, self.stride) for at in first]


def sides(
    sizes: Sequence[int],
    *,
    kernel_shape: Sequence[int],
    strides: Sequence[int] | None,
    pads: Sequence[int] | None,
    dilations: Sequence[int] | None,
    auto_pad: str,
    ceil_mode: int,
) -> list[Side]:
    """The spatial axes of a pool, of these sizes."""
    rank = len(kernel_shape)
    strides, dilations, pads = strides or [1] * rank, dilations or [1] * rank, pads or [0] * 2 * rank
    found = []
    for axis, (size, k, s, d) in enumerate(zip(sizes, kernel_shape, strides, dilations, strict=True)):
        span, begin, end = d * (k - 1) + 1, pads[axis], pads[axis + rank]
        if auto_pad.startswith("SAME"):
            total = max((-(-size // s) - 1) * s + span - size, 0)
            begin = total // 2 if auto_pad == "SAME_UPPER" else -(-total // 2)
            end = total - begin
        room = size + begin + end - span
        found.append(Side(size, k, s, d, begin, (-(-room // s) if ceil_mode else room // s) + 1))
    return found


class MaxPool(OpRun):
    """onnx's takes pads in another order where strides are 1, and strided SAME_LOWER for another size."""

    op_domain = ""

    def _run(self, x: Array, *, storage_order: int, **window: Any) -> tuple[Array, ...]:
        along = [
            # A window must begin before the end pad.
            replace(side, count=side.count - ((side.count - 1) * side.stride >= side.size + side.begin))
            for side in sides(x.shape[2:], **window)
        ]

        def taps(array: Array, fill: float) -> Array:
            padded = np.pad(array, [(0, 0), (0, 0), *(s.padding for s in along)], constant_values=fill)
            return np.stack([padded[:, :, *place] for place in product(*(s.taps for s in along))])

        values = taps(x, -np.inf)
        best = values.argmax(axis=0)[None]
        order = [0, 1, *reversed(range(2, x.ndim))] if storage_order else list(range(x.ndim))
        numbers = np.arange(x.size).reshape([x.shape[axis] for axis in order]).transpose(order)
        places = taps(numbers, -1)
        chosen = (np.take_along_axis(array, best, axis=0)[0] for array in (values, places))
        return tuple(chosen)[: len(self.output)]


class LpPool(OpRun):
    """onnx's makes a p-norm of an average, whose counts differ at the end that ceil_mode adds."""

    op_domain = ""

    def _run(self, x: Array, *, p: int, **window: Any) -> tuple[Array]:
        along = sides(x.shape[2:], **window)
        padded = np.pad(np.abs(x) ** p, [(0, 0), (0, 0), *(side.padding for side in along)])
        powers = sum(padded[:, :, *place] for place in product(*(side.taps for side in along)))
        return (powers ** (1 / p),)


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
