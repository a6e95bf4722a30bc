"""Layouts: the order in which a feature map [N, C, H, W] lies in memory, and what is cheap in each.

A layout decides which operations on a feature map are long contiguous passes and plain matrix products. All
of them give the same values; only the order of axes, and of sums, differs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import ClassVar

import onnx_ir as ir

from cnnc.ir import sizes_of, type_of
from cnnc.layout.ops import Fused, LayoutOps, block_size

Value = ir.Value
Sizes = tuple[int, int, int, int]
"""The static sizes N, C, H, W of a feature map."""


@dataclass(frozen=True)
class Layout:
    """An order of the axes: `axes` are those of [N, C, H, W] as they follow one another in memory."""

    name: str
    axes: tuple[int, int, int, int]

    plain: ClassVar[bool] = False

    @property
    def base(self) -> Layout:
        """The layout without tiles, which a pooled map has."""
        return self

    def dims(self, sizes: Sizes) -> tuple[int, ...]:
        """The dimensions in memory of a feature map of these sizes."""
        return tuple(sizes[axis] for axis in self.axes)

    def around(self, sizes: Sizes) -> tuple[int, int]:
        """How many elements the axes before H, and those behind W, have."""
        before = self.axes.index(2)
        return prod(self.dims(sizes)[:before]), prod(self.dims(sizes)[before + 2 :])

    def fits(self, n: int) -> bool:
        """Whether maps of a batch of `n` can lie so."""
        return True

    def enter(self, op: LayoutOps, x: Value) -> Value:
        """From [N, C, H, W] to this layout."""
        return x if self.plain else op.Transpose(x, perm=list(self.axes))

    def beside(self, op: LayoutOps, x: Value) -> Value:
        """A value with some of N, C, H and W, 1 for the others, so that it broadcasts against maps."""
        return self.enter(op, x)

    def leave(self, op: LayoutOps, x: Value, sizes: Sizes) -> Value:
        """From this layout to [N, C, H, W]."""
        back = [self.axes.index(axis) for axis in range(4)]
        return x if self.plain else op.Transpose(x, perm=back)

    def spread(self, op: LayoutOps, vector: Value, sizes: Sizes) -> Value:
        """A vector [C] so that it broadcasts, in long rows, against `flat` of a map of these sizes."""
        raise NotImplementedError

    def flat(self, sizes: Sizes) -> tuple[int, ...]:
        """The two-dimensional form of a map in which `spread` vectors broadcast."""
        raise NotImplementedError

    def channel_sum(self, op: LayoutOps, x: Value, sizes: Sizes) -> Value:
        """Σ over N, H and W: [C]."""
        raise NotImplementedError

    def channel_dot(self, op: LayoutOps, x: Value, z: Value, sizes: Sizes) -> Value:
        """Σ x·z over N, H and W: [C]."""
        raise NotImplementedError

    def affine(
        self,
        op: LayoutOps,
        z: Value,
        sizes: Sizes,
        *,
        scale: Value | None = None,
        shift: Value | None = None,
        plus: Value | None = None,
        relu: bool = False,
    ) -> Value:
        """z · scale + shift + plus, each channel with its own scale and shift [C]; then a ReLU."""
        vectors = scale is not None or shift is not None
        fused = self.fused(sizes) if op.local and vectors and type_of(z).dtype == ir.DataType.FLOAT else None
        if fused is not None:
            return op.reshape(fused(op, z, scale, shift, plus, relu), self.dims(sizes))
        y = op.reshape(z, self.flat(sizes))
        if scale is not None:
            y = op.Mul(y, self.spread(op, scale, sizes))
        if shift is not None:
            y = op.Add(y, self.spread(op, shift, sizes))
        if plus is not None:
            y = op.Add(y, op.reshape(plus, self.flat(sizes)))
        return op.reshape(op.Relu(y) if relu else y, self.dims(sizes))

    def fused(self, sizes: Sizes) -> Fused | None:
        """How `affine` is one pass in ONNX Runtime, if it can be."""
        return None


class Plain(Layout):
    """[N, C, H, W], as ONNX has it: operators of standard ONNX, and the bodies of `cnnc.lowering`."""

    plain = True


class SpaceFirst(Layout):
    """[H, W, N, C]: what acts on space is a product from the left, on channels one from the right."""

    def flat(self, sizes: Sizes) -> tuple[int, ...]:
        """[H·W, N·C]."""
        n, c, h, w = sizes
        return h * w, n * c

    def fused(self, sizes: Sizes) -> Fused | None:
        """As many channels as a block has are one block; of others the blocks lie apart."""
        n, c, h, w = sizes
        return Fused((1, c, h * w, n), 1) if c == block_size() else None

    def spread(self, op: LayoutOps, vector: Value, sizes: Sizes) -> Value:
        """[N·C]: rows of C alone are too short for ONNX Runtime's broadcasting."""
        n, c, _, _ = sizes
        return op.reshape(op.Expand(vector, [n, c], dims=(n, c)), (n * c,))

    def channel_sum(self, op: LayoutOps, x: Value, sizes: Sizes) -> Value:
        """Σ over space, then over the batch."""
        n, c, _, _ = sizes
        rows = op.ReduceSum(op.reshape(x, self.flat(sizes)), [0], keepdims=0)
        return op.ReduceSum(op.reshape(rows, (n, c)), [0], keepdims=0)

    def channel_dot(self, op: LayoutOps, x: Value, z: Value, sizes: Sizes) -> Value:
        """The sum of the products."""
        return self.channel_sum(
            op, op.Mul(op.reshape(x, self.flat(sizes)), op.reshape(z, self.flat(sizes))), sizes
        )


class ChannelsFirst(Layout):
    """Channels outermost: a 1×1 convolution is a product from the left, a channel one long row."""

    def flat(self, sizes: Sizes) -> tuple[int, ...]:
        """[C, N·H·W]."""
        n, c, h, w = sizes
        return c, n * h * w

    def spread(self, op: LayoutOps, vector: Value, sizes: Sizes) -> Value:
        """[C, 1]."""
        return op.reshape(vector, (sizes[1], 1))

    def channel_sum(self, op: LayoutOps, x: Value, sizes: Sizes) -> Value:
        """Σ along each row."""
        return op.ReduceSum(op.reshape(x, self.flat(sizes)), [1], keepdims=0)

    def channel_dot(self, op: LayoutOps, x: Value, z: Value, sizes: Sizes) -> Value:
        """A product [1, R]·[R, 1] for each channel: no pass that writes the products."""
        c, rows = self.flat(sizes)
        dot = op.MatMul(
            op.reshape(x, (c, 1, rows)), op.Transpose(op.reshape(z, (c, 1, rows)), perm=[0, 2, 1])
        )
        return op.reshape(dot, (c,))

    def fused(self, sizes: Sizes) -> Fused | None:
        """Each channel is one row, seen as 16 channels of a sixteenth of it."""
        c, row = self.flat(sizes)
        part, rest = divmod(row, 16)
        if rest:
            return None
        width = max(d for d in range(1, 65) if part % d == 0)
        return Fused((1, c * 16, part // width, width), 16)


class ExamplesInBlocks(ChannelsFirst):
    """[C, N/b, H, W, b]: examples in blocks of as many as ONNX Runtime's blocked convolutions have channels.

    They see one example of C·N channels in blocks: a depthwise convolution is one of them as the map lies.
    """

    def fits(self, n: int) -> bool:
        """Whether the batch is whole blocks."""
        return block_size() > 0 and n % block_size() == 0

    def dims(self, sizes: Sizes) -> tuple[int, ...]:
        """[C, N/b, H, W, b]."""
        n, c, h, w = sizes
        return c, n // block_size(), h, w, block_size()

    def around(self, sizes: Sizes) -> tuple[int, int]:
        """C·N/b and b."""
        return sizes[0] * sizes[1] // block_size(), block_size()

    def enter(self, op: LayoutOps, x: Value) -> Value:
        """From [N, C, H, W]: first what is together in memory, then whole maps, as one such move is slow."""
        n, c, h, w = sizes_of(x)
        sizes = (n, c, h, w)
        if self._reorders(op, x):
            swapped = op.reshape(op.Transpose(x, perm=[1, 0, 2, 3]), (1, c * n, h, w))
            return op.reshape(op.blocked("ReorderInput", swapped, dims=(1, c * n, h, w)), self.dims(sizes))
        blocks, block = n // block_size(), block_size()
        inner = op.Transpose(op.reshape(x, (blocks, block, c * h * w)), perm=[0, 2, 1])
        outer = op.Transpose(op.reshape(inner, (blocks, c, h * w * block)), perm=[1, 0, 2])
        return op.reshape(outer, self.dims(sizes))

    def leave(self, op: LayoutOps, x: Value, sizes: Sizes) -> Value:
        """Back to [N, C, H, W]."""
        n, c, h, w = sizes
        if self._reorders(op, x):
            maps = op.reshape(x, (1, c * n, h, w))
            plain = op.blocked("ReorderOutput", maps, dims=(1, c * n, h, w), channels=c * n)
            return op.Transpose(op.reshape(plain, (c, n, h, w)), perm=[1, 0, 2, 3])
        blocks, block = n // block_size(), block_size()
        outer = op.Transpose(op.reshape(x, (c, blocks, h * w * block)), perm=[1, 0, 2])
        inner = op.Transpose(op.reshape(outer, (blocks, c * h * w, block)), perm=[0, 2, 1])
        return op.reshape(inner, sizes)

    def _reorders(self, op: LayoutOps, x: Value) -> bool:
        """Whether ONNX Runtime's own operators move maps between blocks and [C, N, H, W]."""
        return op.local and type_of(x).dtype == ir.DataType.FLOAT

    def beside(self, op: LayoutOps, x: Value) -> Value:
        """With axes of 1 where `x` has one value for all examples."""
        n, c, h, w = sizes_of(x)
        return self.enter(op, x) if n > 1 else op.reshape(x, (c, 1, h, w, 1))


NCHW = Plain("NCHW", (0, 1, 2, 3))
HWNC = SpaceFirst("HWNC", (2, 3, 0, 1))
CNHW = ChannelsFirst("CNHW", (1, 0, 2, 3))
CHWN = ChannelsFirst("CHWN", (1, 2, 3, 0))
CBHWN = ExamplesInBlocks("CBHWN", (1, 0, 2, 3))
LAYOUTS = {layout.name: layout for layout in (NCHW, HWNC, CNHW, CHWN, CBHWN)}


@dataclass(frozen=True)
class Tiled(ChannelsFirst):
    """[C, tile, H/th, W/tw, N]: the elements of each pooling tile along an axis of their own.

    Rows and columns beyond the last whole tile are left out: no tile sees them.
    """

    tile: tuple[int, int] = (2, 2)

    @property
    def base(self) -> Layout:
        """[C, H, W, N]."""
        return CHWN

    def dims(self, sizes: Sizes) -> tuple[int, ...]:
        """[C, tile, H/th, W/tw, N]."""
        n, c, h, w = sizes
        return c, prod(self.tile), h // self.tile[0], w // self.tile[1], n

    def leave(self, op: LayoutOps, x: Value, sizes: Sizes) -> Value:
        """Back to [N, C, H, W], zeros where no tile is."""
        n, c, h, w = sizes
        (th, tw), (rows, columns) = self.tile, self.dims(sizes)[2:4]
        apart = op.reshape(x, (c, th, tw, rows, columns, n))
        image = op.reshape(op.Transpose(apart, perm=[5, 0, 3, 1, 4, 2]), (n, c, rows * th, columns * tw))
        return op.Pad(image, [0] * 6 + [h - rows * th, w - columns * tw])

    def enter(self, op: LayoutOps, x: Value) -> Value:
        """From [N, C, H, W]."""
        n, c, h, w = sizes_of(x)
        (th, tw), (rows, columns) = self.tile, self.dims((n, c, h, w))[2:4]
        whole = op.Slice(x, [0, 0], [rows * th, columns * tw], [2, 3])
        apart = op.reshape(whole, (n, c, rows, th, columns, tw))
        return op.reshape(op.Transpose(apart, perm=[1, 3, 5, 2, 4, 0]), self.dims((n, c, h, w)))

    def flat(self, sizes: Sizes) -> tuple[int, ...]:
        """[C, everything else]."""
        return sizes[1], prod(self.dims(sizes)[1:])


def tiled(tile: Sequence[int]) -> Tiled:
    """The tiled layout for pooling tiles of this size."""
    return Tiled(f"CHWN/{tile[0]}×{tile[1]}", CHWN.axes, (int(tile[0]), int(tile[1])))
