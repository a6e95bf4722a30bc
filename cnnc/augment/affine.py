"""Augmentations that turn, shear and resize: pixels are interpolated between their four neighbours."""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass

from cnnc.augment.augmentation import Batch, Call, Value, sizes
from cnnc.augment.sampling import Moving, Read, bilinear, nearest, positions
from cnnc.checks import interval, real


class _Interpolating(Moving):
    """Reads images between pixels, and labels at the nearest one."""

    def read(self, op: Call, batch: Batch) -> tuple[Read, Read]:
        """Both at the same places."""
        rows, columns = self.places(op, batch)

        def between(op: Call, image: Value, fill: Value) -> Value:
            return bilinear(op, image, rows, columns, fill)

        def at(op: Call, image: Value, fill: Value) -> Value:
            return nearest(op, image, op.Round(rows), op.Round(columns), fill)

        return between, at

    @abstractmethod
    def places(self, op: Call, batch: Batch) -> tuple[Value, Value]:
        """Draw, and return the rows and columns to read, in the images' element type."""


@dataclass(frozen=True)
class RandomAffine(_Interpolating):
    """Turns, shifts, scales and shears images about their centre, as torchvision's.

    The angle lies within ±`degrees`, the shift within ±`translate` (a share of the height and width), the
    factor of the size in the range `scale`, and the angle of the shear along rows within ±`shear` degrees.
    Outside is the stored pixel `fill` times its scale (0: black).
    """

    kind = "affine"
    degrees: float = 15.0
    translate: float = 0.0
    scale: tuple[float, float] = (1.0, 1.0)
    shear: float = 0.0
    fill: float = 0.0

    def __post_init__(self) -> None:
        owner = type(self).__name__
        real(owner, "degrees", self.degrees, below=180.0 + 1e-6)
        real(owner, "translate", self.translate, below=1.0 + 1e-9)
        real(owner, "shear", self.shear, below=90.0)
        object.__setattr__(self, "scale", interval(owner, "scale", self.scale, positive=True))
        real(owner, "fill", self.fill, least=-math.inf)

    @property
    def pixel(self) -> float:
        """The fill."""
        return self.fill

    def places(self, op: Call, batch: Batch) -> tuple[Value, Value]:
        """Where each pixel comes from: the inverse of scale · rotation · shear, after the shift."""
        image = batch.images
        numbers = op.draw(batch, 5)
        (rows, columns), centre = positions(op, image), [(size - 1) / 2 for size in sizes(image)[1:]]
        y, x = op.Sub(rows, centre[0]), op.Sub(columns, centre[1])
        if self.translate:
            down, across = (self.translate * size for size in sizes(image)[1:])
            y = op.Sub(y, op.between(numbers[0], -down, down, image))
            x = op.Sub(x, op.between(numbers[1], -across, across, image))
        limit = math.radians(self.degrees)
        angle = op.between(numbers[2], -limit, limit, image)
        cos, sin = op.Cos(angle), op.Sin(angle)
        y, x = op.Sub(op.Mul(cos, y), op.Mul(sin, x)), op.Add(op.Mul(sin, y), op.Mul(cos, x))
        if self.scale != (1.0, 1.0):
            factor = op.between(numbers[3], *self.scale, image)
            y, x = op.Div(y, factor), op.Div(x, factor)
        if self.shear:
            limit = math.radians(self.shear)
            slant = op.between(numbers[4], -limit, limit, image)
            tangent = op.Div(op.Sin(slant), op.Cos(slant))  # CUDA's provider has no Tan
            x = op.Add(x, op.Mul(tangent, y))
        return op.Add(y, centre[0]), op.Add(x, centre[1])


@dataclass(frozen=True)
class RandomRotation(_Interpolating):
    """Turns images about their centre by an angle within ±`degrees`, as torchvision's with bilinear reading.

    Outside is the stored pixel `fill` times its scale (0: black).
    """

    kind = "rotate"
    degrees: float = 15.0
    fill: float = 0.0

    def __post_init__(self) -> None:
        real("RandomRotation", "degrees", self.degrees, below=180.0 + 1e-6)
        real("RandomRotation", "fill", self.fill, least=-math.inf)

    @property
    def pixel(self) -> float:
        """The fill."""
        return self.fill

    def places(self, op: Call, batch: Batch) -> tuple[Value, Value]:
        """Those of a `RandomAffine` that does nothing else."""
        return RandomAffine(self.degrees).places(op, batch)


@dataclass(frozen=True)
class RandomResizedCrop(_Interpolating):
    """Cuts a part out of each image and resizes it to the whole; Szegedy et al., 2015, as torchvision's.

    The part has a share of the area in the range `scale`, and a ratio of width to height, as shares of the
    image's own, in the range `ratio`, evenly in its logarithm and as far as it fits. Pixels are read between
    their four neighbours, without a filter before: a part is never larger than the image.
    """

    kind = "resized_crop"
    scale: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)

    def __post_init__(self) -> None:
        owner = "RandomResizedCrop"
        object.__setattr__(self, "scale", interval(owner, "scale", self.scale, positive=True, most=1.0))
        object.__setattr__(self, "ratio", interval(owner, "ratio", self.ratio, positive=True))

    def places(self, op: Call, batch: Batch) -> tuple[Value, Value]:
        """Pixel centres of the whole, moved into the part; beyond the image's border is the border."""
        image = batch.images
        area, ratio, *offsets = op.draw(batch, 4)
        root = op.Sqrt(op.between(area, *self.scale, image))  # a square's side; both sides are at most 1
        stretch = op.Exp(op.between(ratio, math.log(self.ratio[0]) / 2, math.log(self.ratio[1]) / 2, image))
        stretch = op.Max(op.Min(stretch, op.Div(1.0, root)), root)
        places = []
        axes = zip(
            (op.Div(root, stretch), op.Mul(root, stretch)),
            *(offsets, positions(op, image), sizes(image)[1:]),
            strict=True,
        )
        for side, number, straight, size in axes:
            begin = op.Mul(op.Mul(op.cast(number, image), op.Sub(1.0, side)), float(size))
            place = op.Sub(op.Add(op.Mul(op.Add(straight, 0.5), side), begin), 0.5)
            places.append(op.Max(op.Min(place, float(size - 1)), 0.0))
        return places[0], places[1]
