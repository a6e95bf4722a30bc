"""Reading images at other places: how augmentations move pixels.

By Gather along the first axis: of whole rows where rows and columns move by themselves, else of pixels. It is
exact, every runtime has it, and for whole rows it is faster than GridSample, of which no form runs everywhere
(onnx's reference knows the modes of opset 20 alone). onnx's reference has a GatherElements for up to 64
elements only.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable

import numpy as np
import onnx_ir as ir

from cnnc.augment.augmentation import Augmentation, Batch, Call, Value, is_image, sizes
from cnnc.bundle import TargetSpec
from cnnc.errors import ShapeError
from cnnc.ir import TensorType, dims_of

Read = Callable[[Call, Value, Value], Value]
"""From images [N, C, H, W] and their fill to images of the same type."""


class Moving(Augmentation):
    """An augmentation that moves pixels, of the images and of targets that are images themselves.

    Where it reads outside, it finds a fill in the images; in targets the label that the loss ignores, or 0.
    """

    def check(self, image: TensorType, target: TargetSpec) -> None:
        """Targets are no images, or such of the input's size."""
        super().check(image, target)
        if len(target.shape) > 2 and not is_image(target.shape, image.dims):
            raise ShapeError(
                f"{type(self).__name__} moves pixels, and can't move the targets along: they are "
                f"[{', '.join(map(str, target.shape))}], for an input {image}.",
                hint="Let the network's output have the height and width of its input, or leave it out.",
            )

    def emit(self, op: Call, batch: Batch) -> Batch:
        """Images by `read`, targets that are images too."""
        smooth, nearest = self.read(op, batch)
        images = smooth(op, batch.images, op.fill(self.pixel, batch.images))

        def moved(name: str, target: Value) -> Value:
            dims, spec = dims_of(target), op.facts.targets[name]
            if not is_image(dims, dims_of(batch.images)):
                return target
            flat = op.reshape(target, (dims[0], 1, *dims[1:])) if len(dims) == 3 else target
            outside = op.builder.constant(spec.ignored or 0, target.dtype)
            read = smooth if spec.kind == "value" else nearest
            return op.reshape(read(op, flat, outside), dims)

        return Batch(images, batch.terms).with_targets(moved)

    @property
    def pixel(self) -> float:
        """What is outside of the images: a stored pixel times its scale."""
        return 0.0

    @abstractmethod
    def read(self, op: Call, batch: Batch) -> tuple[Read, Read]:
        """Draw, and return how images and values are read, and how labels are."""


def shifted(op: Call, image: Value, rows: Value | None, columns: Value | None, fill: Value | None) -> Value:
    """The pixels in other rows [N, 1, H, 1] and columns [N, 1, 1, W]; None: the same ones.

    What lies outside has the fill; None: nothing does.
    """
    _, height, width = sizes(image)
    result, inside = image, []
    if rows is not None:
        if fill is not None:
            rows, kept = _clipped(op, rows, height)
            inside.append(kept)
        result = _rows(op, result, rows)
    if columns is not None:
        if fill is not None:
            columns, kept = _clipped(op, columns, width)
            inside.append(kept)
        turned = op.Transpose(result, perm=[0, 1, 3, 2])
        result = op.Transpose(_rows(op, turned, columns), perm=[0, 1, 3, 2])
    if inside:
        result = op.Where(op.And(*inside) if len(inside) > 1 else inside[0], result, fill)
    return result


def nearest(op: Call, image: Value, rows: Value, columns: Value, fill: Value) -> Value:
    """The pixels at integer places [N, 1, H, W], and outside of the image the fill."""
    _, height, width = sizes(image)
    (rows, above), (columns, beside) = _clipped(op, rows, height), _clipped(op, columns, width)
    found = _channels_first(op, _pixels(op, _channels_last(op, image), image, rows, columns), image)
    chosen: Value = op.Where(op.And(above, beside), found, fill)
    return chosen


def bilinear(op: Call, image: Value, rows: Value, columns: Value, fill: Value) -> Value:
    """Between the four pixels around each place [N, 1, H, W]; what lies outside has the fill."""
    batch, _, height, width = dims_of(image)
    down, across = _taps(op, image, rows, sizes(image)[1]), _taps(op, image, columns, sizes(image)[2])
    flat, parts, weights = _channels_last(op, image), [], []
    for row, part in down:
        for column, other in across:
            weight = op.Mul(part, other)
            weights.append(weight)
            by_pixel = op.reshape(weight, (batch, *_product(height, width), 1))
            parts.append(op.Mul(_pixels(op, flat, image, row, column), by_pixel))
    outside = op.Sub(1.0, op.Sum(*weights))
    inner = _channels_first(op, op.Sum(*parts), image)
    mixed: Value = op.Add(inner, op.Mul(fill, outside))
    return mixed


def _taps(op: Call, image: Value, places: Value, size: int) -> list[tuple[Value, Value]]:
    """The two elements around each place, brought inside, and their weights: 0 where they were outside."""
    base = op.Floor(places)
    behind = op.Sub(places, base)
    taps = []
    for place, weight in ((base, op.Sub(1.0, behind)), (op.Add(base, 1.0), behind)):
        clipped, inside = _clipped(op, place, size)
        taps.append((clipped, op.Mul(weight, op.cast(inside, image))))
    return taps


def _rows(op: Call, image: Value, rows: Value) -> Value:
    """Other rows of each image, in one Gather that copies whole rows: `rows` are N·H integers."""
    batch, channels, height, width = dims_of(image)
    int64 = int(ir.DataType.INT64)
    start = op.Mul(_counted(op, image, channels), height)
    places = op.reshape(op.Cast(rows, to=int64), (batch, 1, height))
    index = op.Add(op.reshape(start, (batch, channels, 1)), places)
    flat = op.Reshape(image, [-1, width], dims=(op.builder.unique(f"{op.name}/rows"), width))
    return op.reshape(op.Gather(flat, index, axis=0), dims_of(image))


def _pixels(op: Call, flat: Value, image: Value, rows: Value, columns: Value) -> Value:
    """All channels of the pixels at integer places inside: [N, H·W, C] from [N·H·W, C]."""
    batch, _, height, width = dims_of(image)
    int64, (area,) = int(ir.DataType.INT64), _product(height, width)
    places = op.Cast(op.Add(op.Mul(rows, float(sizes(image)[2])), columns), to=int64)
    start = op.Mul(_counted(op, image, 1), area)
    index = op.Add(op.reshape(places, (batch, area)), op.reshape(start, (batch, 1)))
    found: Value = op.Gather(flat, index, axis=0)
    return found


def _counted(op: Call, image: Value, times: int | str) -> Value:
    """0, 1, …, times·N - 1."""
    assert isinstance(times, int)
    batch = dims_of(image)[0]
    if isinstance(batch, int):
        return op.builder.constant(np.arange(times * batch))
    count = op.Mul(op.Squeeze(op.Shape(image, start=0, end=1)), times)
    counted: Value = op.Range(
        0, count, 1, dims=(op.builder.unique(f"{op.name}/images"),) if times > 1 else (batch,)
    )
    return counted


def _channels_last(op: Call, image: Value) -> Value:
    """[N, C, H, W] → [N·H·W, C]."""
    channels = sizes(image)[0]
    turned = op.Transpose(image, perm=[0, 2, 3, 1])
    flat: Value = op.Reshape(turned, [-1, channels], dims=(op.builder.unique(f"{op.name}/pixels"), channels))
    return flat


def _channels_first(op: Call, pixels: Value, image: Value) -> Value:
    """[N, H·W, C] → [N, C, H, W]."""
    return op.reshape(op.Transpose(pixels, perm=[0, 2, 1]), dims_of(image))


def _product(height: int | str, width: int | str) -> tuple[int]:
    assert isinstance(height, int)
    assert isinstance(width, int)
    return (height * width,)


def _clipped(op: Call, places: Value, size: int) -> tuple[Value, Value]:
    """Places, in floating point, moved inside, and whether they were."""
    clipped = op.Max(op.Min(places, float(size - 1)), 0.0)
    return clipped, op.Equal(clipped, places)


def positions(op: Call, image: Value, dtype: ir.DataType | None = None) -> tuple[Value, Value]:
    """The rows [1, 1, H, 1] and columns [1, 1, 1, W] of an image, in its element type or another."""
    _, height, width = sizes(image)
    rows = op.builder.constant(np.arange(height).reshape(1, 1, -1, 1), dtype or image.dtype)
    return rows, op.builder.constant(np.arange(width).reshape(1, 1, 1, -1), dtype or image.dtype)
