"""Augmentations that move every pixel to the place of another: flips and shifts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from cnnc.augment.augmentation import Batch, Call, Value, sizes
from cnnc.augment.sampling import Moving, Read, positions, shifted
from cnnc.bundle import TargetSpec
from cnnc.checks import integer, one_of, probability, real
from cnnc.errors import ShapeError
from cnnc.ir import TensorType


@dataclass(frozen=True)
class _Flip(Moving):
    """Mirrors an example with the probability `p`."""

    axis: ClassVar[int]
    p: float = 0.5

    def __post_init__(self) -> None:
        probability(type(self).__name__, "p", self.p)

    def read(self, op: Call, batch: Batch) -> tuple[Read, Read]:
        """Every place from the other end of its axis."""
        (number,) = op.draw(batch, 1)
        straight = positions(op, batch.images)[self.axis]
        mirrored = op.Sub(float(sizes(batch.images)[1 + self.axis] - 1), straight)
        places = op.Where(op.Less(number, self.p), mirrored, straight)
        rows, columns = (places, None) if self.axis == 0 else (None, places)

        def read(op: Call, image: Value, _: Value) -> Value:
            return shifted(op, image, rows, columns, None)

        return read, read


@dataclass(frozen=True)
class RandomHorizontalFlip(_Flip):
    """Left and right change places with the probability `p`, as torchvision's."""

    kind, axis = "flip", 1


@dataclass(frozen=True)
class RandomVerticalFlip(_Flip):
    """Top and bottom change places with the probability `p`, as torchvision's."""

    kind, axis = "vflip", 0


@dataclass(frozen=True)
class RandomCrop(Moving):
    """Pads each side by `padding` pixels and cuts an image of the input's own size out of it, anywhere.

    So every image is shifted by up to `padding` pixels; He et al., 2015, section 4.2, for CIFAR with 4.
    `padding` is one number or (rows, columns). `padding_mode` is ``constant`` (the stored pixel `fill` times
    its scale: 0 is black), ``edge`` or ``reflect``, as torchvision's.
    """

    kind = "crop"
    padding: int | tuple[int, int] = 4
    padding_mode: Literal["constant", "edge", "reflect"] = "constant"
    fill: float = 0.0

    def __post_init__(self) -> None:
        owner = "RandomCrop"
        pair = self.padding if isinstance(self.padding, tuple | list) else (self.padding,) * 2
        if len(pair) != 2:
            integer(owner, "padding", self.padding)  # raises
        object.__setattr__(self, "padding", tuple(integer(owner, "padding", p, least=0) for p in pair))
        one_of(owner, "padding_mode", self.padding_mode, ("constant", "edge", "reflect"))
        real(owner, "fill", self.fill, least=float("-inf"))

    def check(self, image: TensorType, target: TargetSpec) -> None:
        """Less padding than there are pixels."""
        super().check(image, target)
        if any(
            p >= size for p, size in zip(self._pads, image.dims[2:], strict=True) if isinstance(size, int)
        ):
            raise ShapeError(
                f"RandomCrop: a padding of {self.padding} pixels is too much for an input {image}.",
                hint="The size stays the input's; the padding, such as 4, is how far an image moves.",
            )

    @property
    def _pads(self) -> tuple[int, int]:
        assert isinstance(self.padding, tuple)
        return self.padding

    @property
    def pixel(self) -> float:
        """The fill."""
        return self.fill

    def read(self, op: Call, batch: Batch) -> tuple[Read, Read]:
        """Places behind an offset, brought inside as the mode says."""
        places = []
        axes = zip(
            op.draw(batch, 2), positions(op, batch.images), self._pads, sizes(batch.images)[1:], strict=True
        )
        for number, straight, pad, size in axes:
            offset = op.Sub(op.below(number, 2 * pad + 1), float(pad))
            place = op.Add(straight, op.cast(offset, batch.images))
            places.append(self._inside(op, place, float(size - 1)))

        def read(op: Call, image: Value, fill: Value) -> Value:
            rows, columns = places
            return shifted(op, image, rows, columns, fill if self.padding_mode == "constant" else None)

        return read, read

    def _inside(self, op: Call, places: Value, last: float) -> Value:
        if self.padding_mode == "edge":
            places = op.Max(op.Min(places, last), 0.0)
        elif self.padding_mode == "reflect":
            places = op.Sub(last, op.Abs(op.Sub(op.Abs(places), last)))
        return places
