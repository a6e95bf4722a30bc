"""What forms compute with: standard ONNX, and operators that ONNX Runtime's CPU build has beside it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from cnnc.ir import Builder, Ops, sizes_of

Value = ir.Value

BLOCKED = "com.microsoft.nchwc"
"""ONNX Runtime's domain of convolutions on channels in blocks of 8 or 16, as many as a register holds."""

STEEP = 3e38
"""As alpha of HardSigmoid: every normal positive float32 becomes 1 in one vectorised pass."""


class LayoutOps(Ops):
    """Standard ONNX, and what ONNX Runtime's CPU build has beside it, where `local` allows that.

    `exact` asks for values that differ from the plain ones by the order of sums only.
    """

    def __init__(self, builder: Builder, *, local: bool = True, exact: bool = False) -> None:
        super().__init__(builder)
        self.local, self.exact = local, exact

    def FusedMatMul(self, a: Value, b: Value, dims: Sequence[int], **transposed: int) -> Value:  # noqa: N802 -- as the runtime calls it
        """ONNX Runtime's product with transposed operands, batches between rows and columns included."""
        return self.builder.extension("FusedMatMul", "com.microsoft", a, b, dims=dims, **transposed)

    def after(self, other: Value | None, x: Value, dims: Sequence[int]) -> Value:
        """x reshaped to `dims`, but not before `other`, if any: what is made of it is made then, not kept.

        The shape is one that no runtime knows before: it adds whether an absolute value is negative. ONNX
        Runtime leaves it out where another Reshape follows.
        """
        if other is None:
            return self.reshape(x, dims)
        one = self.Gather(self.reshape(other, (prod(sizes_of(other)),)), np.zeros(1, np.int64), axis=0)
        nothing = self.Cast(self.Less(self.Abs(one), 0.0), to=ir.DataType.INT64)
        return self.builder.op("Reshape", x, self.Add(np.array(dims, np.int64), nothing), dims=dims)

    def blocked(self, op_type: str, *operands: Value | None, dims: Sequence[int], **attributes: Any) -> Value:
        """An operator of ONNX Runtime's blocked domain."""
        return self.builder.extension(op_type, BLOCKED, *operands, dims=dims, **attributes)


@cache
def block_size() -> int:
    """Channels of a block of ONNX Runtime's blocked convolutions here; 0 where it is not known.

    MLAS takes 16 on processors with AVX-512, 8 on others of x86-64.
    """
    try:
        flags = set(Path("/proc/cpuinfo").read_text().split())
    except OSError:
        return 0
    return 16 if "avx512f" in flags else 8 if "avx" in flags else 0


@dataclass(frozen=True)
class Fused:
    """A blocked 1×1 convolution per channel: it scales, shifts, adds and cuts in one pass over memory.

    `dims` are those of a map as this convolution sees it, each channel `times` times. What lies in one block
    of channels is not reordered for that.
    """

    dims: tuple[int, int, int, int]
    times: int

    def __call__(
        self,
        op: LayoutOps,
        z: Value,
        scale: Value | None,
        shift: Value | None,
        plus: Value | None,
        relu: bool,
    ) -> Value:
        """z · scale + shift + plus, and a ReLU where `relu` says so."""
        channels = self.dims[1]

        def repeated(vector: Value) -> Value:
            if self.times == 1:
                return vector
            dims = (channels // self.times, self.times)
            return op.reshape(op.Expand(op.reshape(vector, (dims[0], 1)), dims, dims=dims), (channels,))

        ones = np.ones((channels, 1, 1, 1), np.float32)
        return op.blocked(
            "Conv",
            op.reshape(z, self.dims),
            op.builder.constant(ones) if scale is None else op.reshape(repeated(scale), (channels, 1, 1, 1)),
            None if shift is None else repeated(shift),
            *([op.reshape(plus, self.dims)] if plus is not None else []),
            dims=self.dims,
            group=channels,
            kernel_shape=[1, 1],
            strides=[1, 1],
            pads=[0] * 4,
            dilations=[1, 1],
            **({"activation": "Relu"} if relu else {}),
        )
