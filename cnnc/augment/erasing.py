"""Augmentations that paint over a part of an image."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from cnnc.augment.augmentation import Augmentation, Batch, Call, Value, sizes
from cnnc.augment.sampling import positions
from cnnc.checks import interval, probability, real
from cnnc.errors import GraphFileError
from cnnc.ir import dims_of
from cnnc.source import user_line

_LEVELS = 64
"""How many areas, and how many ratios, are told apart."""


@dataclass(frozen=True)
class RandomErasing(Augmentation):
    """Paints over a rectangle of an image with the probability `p`; Zhong et al., 2020, as torchvision's.

    It has a share of the area in the range `scale`, and a ratio of height to width in the range `ratio`,
    evenly in its logarithm and as far as it fits. `value` is what the network then sees there (0 is the mean,
    where the input has one), or ``random``: each pixel anything that can be stored.
    """

    kind = "erase"
    p: float = 0.5
    scale: tuple[float, float] = (0.02, 0.33)
    ratio: tuple[float, float] = (0.3, 3.3)
    value: float | str = 0.0

    def __post_init__(self) -> None:
        owner = "RandomErasing"
        probability(owner, "p", self.p)
        object.__setattr__(self, "scale", interval(owner, "scale", self.scale, most=1.0))
        object.__setattr__(self, "ratio", interval(owner, "ratio", self.ratio, positive=True))
        if isinstance(self.value, str) and self.value != "random":
            raise GraphFileError(
                f"{owner}: value must be a number or 'random', not {self.value!r}.", where=user_line()
            )
        if not isinstance(self.value, str):
            real(owner, "value", self.value, least=-math.inf)

    def emit(self, op: Call, batch: Batch) -> Batch:
        """The sides of the rectangle are looked up: every runtime finds the same."""
        image = batch.images
        _, height, width = sizes(image)
        whether, area, ratio, down, across = op.draw(batch, 5)
        place = op.Add(op.Mul(op.below(area, _LEVELS), float(_LEVELS)), op.below(ratio, _LEVELS))
        edges = []
        tables = rectangles(height, width, self.scale, self.ratio)
        for table, number, size in zip(tables, (down, across), (height, width), strict=True):
            side = op.looked_up(table.tolist(), place)
            begin = op.below(number, op.Sub(float(size + 1), side))
            edges += [begin, op.Add(begin, side)]
        mask = op.And(rectangle(op, image, *edges), op.Less(whether, self.p))
        return Batch(op.Where(mask, self._painted(op, batch), image), batch.terms)

    def _painted(self, op: Call, batch: Batch) -> Value:
        image = batch.images
        if not isinstance(self.value, str):
            return op.builder.constant(self.value, image.dtype)
        numbers = op.part("value").numbers(batch, math.prod(sizes(image)))
        pixels = op.reshape(op.cast(numbers, image), dims_of(image))
        return op.preprocessed(op.Mul(pixels, op.white))


def rectangle(op: Call, image: Value, top: Value, bottom: Value, left: Value, right: Value) -> Value:
    """Which pixels lie in it, bool [N, 1, H, W]; edges are integers in floating point [N, 1, 1, 1]."""
    rows, columns = positions(op, image, ir.DataType.FLOAT)
    down = op.And(op.GreaterOrEqual(rows, top), op.Less(rows, bottom))
    across = op.And(op.GreaterOrEqual(columns, left), op.Less(columns, right))
    inside: Value = op.And(down, across)
    return inside


@cache
def rectangles(
    height: int, width: int, scale: tuple[float, float], ratio: tuple[float, float]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """The heights and widths of rectangles in pixels, for each level of the area and each of the ratio."""
    levels = (np.arange(_LEVELS) + 0.5) / _LEVELS
    area = (scale[0] + levels * (scale[1] - scale[0]))[:, None] * height * width
    low, high = (np.log(r) for r in ratio)
    fits = np.log(np.maximum(area, 1e-9) / width**2), np.log(height**2 / np.maximum(area, 1e-9))
    low, high = (np.clip(end, *fits) for end in (low, high))
    stretch = np.exp(low + levels * (high - low))
    sides = (np.sqrt(area * stretch), height), (np.sqrt(area / stretch), width)
    tall, wide = (np.clip(np.round(side), 0, size).astype(np.int64).ravel() for side, size in sides)
    return tall, wide
