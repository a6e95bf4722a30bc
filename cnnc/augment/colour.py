"""Augmentations of colour."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from cnnc.augment.augmentation import Augmentation, Batch, Call, Value, sizes
from cnnc.bundle import TargetSpec
from cnnc.checks import interval, real
from cnnc.errors import GraphFileError, ShapeError
from cnnc.ir import TensorType
from cnnc.source import user_line

Amount = float | tuple[float, float]
_GREY = np.array([0.2989, 0.587, 0.114])  # of ITU-R BT.601, as torchvision rounds them


@dataclass(frozen=True)
class ColorJitter(Augmentation):
    """Changes brightness, contrast, saturation and hue, one after another, as torchvision's functions do.

    `brightness` b multiplies pixels by a factor in [max(0, 1 - b), 1 + b]; so do `contrast` with a pixel's
    distance from the image's mean grey, and `saturation` with its distance from its own grey. `hue` turns the
    colour by a share of the circle in [-hue, hue], of at most 0.5. Each may be a range (low, high) instead,
    and 0 leaves it as it is. Pixels are clipped to what can be stored: [0, 255] times the scale.
    torchvision's order is random; here it is the one above.
    """

    kind = "jitter"
    brightness: Amount = 0.0
    contrast: Amount = 0.0
    saturation: Amount = 0.0
    hue: Amount = 0.0

    def __post_init__(self) -> None:
        owner = "ColorJitter"
        for field, middle in (("brightness", 1.0), ("contrast", 1.0), ("saturation", 1.0), ("hue", 0.0)):
            amount, least = getattr(self, field), -0.5 if field == "hue" else 0.0
            if not isinstance(amount, tuple | list):
                number = real(owner, field, amount)
                amount = (middle - number if field == "hue" else max(middle - number, 0.0), middle + number)
            most = 0.5 if field == "hue" else float("inf")
            object.__setattr__(self, field, interval(owner, field, amount, least, most))
        if not self._active:
            raise GraphFileError(
                "ColorJitter: it changes nothing.",
                where=user_line(),
                hint="Write ColorJitter(brightness=0.2).",
            )

    @property
    def _active(self) -> list[tuple[_Change, tuple[float, float]]]:
        """The changes to make, with the ranges of what is drawn for them."""
        kinds = (
            (_brightness, self.brightness, (1.0, 1.0)),
            (_contrast, self.contrast, (1.0, 1.0)),
            (_saturation, self.saturation, (1.0, 1.0)),
            (_hue, self.hue, (0.0, 0.0)),
        )
        return [
            (change, range_) for change, range_, idle in kinds if isinstance(range_, tuple) and range_ != idle
        ]

    def check(self, image: TensorType, target: TargetSpec) -> None:
        """Three channels, or one that has brightness and contrast alone."""
        super().check(image, target)
        colours = {_saturation, _hue} & {change for change, _ in self._active}
        if image.dims[1] != 3 and (colours or image.dims[1] != 1):
            raise ShapeError(
                f"ColorJitter takes images of three colours; the input is {image}.",
                hint="Grey images have brightness and contrast." if image.dims[1] == 1 else "Leave it out.",
            )

    def emit(self, op: Call, batch: Batch) -> Batch:
        """Each change on pixels as they were stored."""
        image, active = op.stored(batch.images), self._active
        for number, (change, range_) in zip(op.draw(batch, len(active)), active, strict=True):
            image = change(op, image, op.between(number, *range_, image))
        return Batch(op.preprocessed(image), batch.terms)


_Change = Callable[[Call, Value, Value], Value]


def _brightness(op: Call, image: Value, factor: Value) -> Value:
    return _clipped(op, op.Mul(image, factor))


def _contrast(op: Call, image: Value, factor: Value) -> Value:
    return _blended(op, image, op.ReduceMean(_grey(op, image), [2, 3]), factor)


def _saturation(op: Call, image: Value, factor: Value) -> Value:
    return _blended(op, image, _grey(op, image), factor)


def _hue(op: Call, image: Value, turn: Value) -> Value:
    """By HSV: channel n is V - C · max(0, min(k, 4 - k, 1)) with k = (n + 6·hue) mod 6 and n = 5, 3, 1."""
    red, green, blue = op.split(image, [1, 1, 1], axis=1)
    most, least = (op.ReduceMax(image, [1]), op.ReduceMin(image, [1]))
    chroma = op.Sub(most, least)
    divisor = op.Add(chroma, op.cast(op.Equal(chroma, 0.0), image))
    sextant = op.Where(
        op.Equal(most, red),
        op.Div(op.Sub(green, blue), divisor),
        op.Where(
            op.Equal(most, green),
            op.Add(op.Div(op.Sub(blue, red), divisor), 2.0),
            op.Add(op.Div(op.Sub(red, green), divisor), 4.0),
        ),
    )
    sextant = op.Add(sextant, op.Mul(turn, 6.0))
    k = op.Add(sextant, op.by_channel(np.array([5.0, 3.0, 1.0]), image))
    k = op.Sub(k, op.Mul(op.Floor(op.Div(k, 6.0)), 6.0))
    share = op.Max(op.Min(k, op.Sub(4.0, k), 1.0), 0.0)
    turned: Value = op.Sub(most, op.Mul(chroma, share))
    return turned


def _grey(op: Call, image: Value) -> Value:
    """The luminance [N, 1, H, W]; grey images are their own."""
    if sizes(image)[0] == 1:
        return image
    grey: Value = op.ReduceSum(op.Mul(image, op.by_channel(_GREY, image)), [1])
    return grey


def _blended(op: Call, image: Value, other: Value, factor: Value) -> Value:
    return _clipped(op, op.Add(op.Mul(op.Sub(image, other), factor), other))


def _clipped(op: Call, image: Value) -> Value:
    clipped: Value = op.Max(op.Min(image, op.white), 0.0)
    return clipped
