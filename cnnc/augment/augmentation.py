"""What every augmentation is made of."""

from __future__ import annotations

import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import onnx_ir as ir

from cnnc.bundle import Preprocessing, TargetSpec
from cnnc.describe import describe
from cnnc.errors import ShapeError
from cnnc.ir import Builder, Dim, Ops, TensorType, dims_of, type_of
from cnnc.losses.loss import Term

Value = ir.Value


@dataclass(frozen=True)
class Batch:
    """A batch on its way: images [N, C, H, W], and its targets, or several with their shares."""

    images: Value
    terms: tuple[Term, ...]

    def with_targets(self, change: Callable[[str, Value], Value]) -> Batch:
        """The batch with other targets of the same shares."""
        terms = (
            ({name: change(name, value) for name, value in targets.items()}, share)
            for targets, share in self.terms
        )
        return replace(self, terms=tuple(terms))


@dataclass(frozen=True)
class Augmentation(ABC):
    """A random change of each example of a batch, as a graph.

    A subclass is a frozen dataclass: its fields are its settings, and say in a ``__post_init__`` what they
    can't be.
    """

    kind: ClassVar[str]
    """What the command line and nodes of the graph call it."""

    def check(self, image: TensorType, target: TargetSpec) -> None:
        """Raise ShapeError where it can't be done to such images with such targets."""
        if image.rank != 4 or not all(isinstance(d, int) for d in image.dims[1:]):
            raise ShapeError(
                f"{type(self).__name__} takes images [N, C, H, W] of a known size; the input is {image}.",
                hint="Of what augment has, only MixUp takes other inputs.",
            )

    @abstractmethod
    def emit(self, op: Call, batch: Batch) -> Batch:
        """Emit the batch after it."""

    def describe(self) -> dict[str, Any]:
        """Name and fields, for the manifest."""
        return dict(describe(self))


@dataclass(frozen=True)
class Facts:
    """What all augmentations of a graph know: the generator's seed and step, and what the data are."""

    seed: Value
    step: Value
    preprocessing: Preprocessing
    targets: Mapping[str, TargetSpec]


class Call(Ops):
    """One use of an augmentation: ``op.Mul(a, b)`` to emit its mathematics, and the numbers it draws.

    `name` is its own in the graph; the numbers depend on no other's.
    """

    def __init__(self, builder: Builder, name: str, facts: Facts) -> None:
        super().__init__(builder)
        self.name, self.facts = name, facts
        self._partners: dict[Value | None, Value] = {}

    def part(self, name: str) -> Call:
        """The use of an augmentation within this one: it draws by itself, and mixes the same partners."""
        part = Call(self.builder, f"{self.name}/{name}", self.facts)
        part._partners = self._partners
        return part

    # Random numbers.

    def draw(self, batch: Batch, count: int) -> list[Value]:
        """`count` uniform numbers in (0, 1) for each example, each float32 [N, 1, 1, 1]: `UniformDraws`."""
        numbers = self.numbers(batch, count)
        shape = (dims_of(numbers)[0], 1, 1, 1)
        return [self.reshape(part, shape) for part in self.split(numbers, [1] * count, axis=1)]

    def numbers(self, batch: Batch, count: int) -> Value:
        """The same as one matrix [N, count]."""
        stream = zlib.crc32(self.name.encode()) & 0x7FFFFFFF
        numbers: Value = self.UniformDraws(
            batch.images,
            self.facts.seed,
            self.facts.step,
            name=f"{self.name}/draws",
            count=count,
            stream=stream,
        )
        return numbers

    def below(self, number: Value, count: Value | int) -> Value:
        """A drawn number as an integer in [0, count), in floating point: the same on every runtime."""
        integer: Value = self.Floor(self.Mul(number, count if isinstance(count, Value) else float(count)))
        return integer

    def between(self, number: Value, low: float, high: float, like: Value) -> Value:
        """A drawn number as one in (low, high), of the element type of `like`."""
        value: Value = self.Add(self.Mul(self.cast(number, like), high - low), low)
        return value

    def looked_up(self, table: Sequence[float], places: Value) -> Value:
        """Elements of a table, float32, at integers in floating point."""
        constant = self.builder.constant(table, ir.DataType.FLOAT)
        found: Value = self.Gather(constant, self.Cast(places, to=int(ir.DataType.INT64)), axis=0)
        return found

    def cast(self, value: Value, like: Value) -> Value:
        """`value` in the element type of `like`."""
        return value if value.dtype == like.dtype else self.Cast(value, to=int(type_of(like).dtype))

    # Partners.

    def pair(self, batch: Batch, number: Value) -> None:
        """Give each example the partner that lies k places further round the batch, 0 < k < N.

        k is drawn by the first of the numbers [N, 1, 1, 1]. In a batch of one it is the example itself.
        """
        if None in self._partners:
            return
        count = self.Shape(batch.images, start=0, end=1)
        first = self.Reshape(self.Slice(number, [0], [1], [0]), [1])
        others = self.Cast(self.Sub(count, 1), to=int(ir.DataType.FLOAT))
        ahead = self.Add(self.Cast(self.below(first, others), to=int(ir.DataType.INT64)), 1)
        places = self.Range(0, self.Squeeze(count), 1, dims=dims_of(batch.images)[:1])
        self._partners[None] = self.Mod(self.Add(places, ahead), count)

    def partners(self, value: Value) -> Value:
        """What the partner of each example has, of a value [N, …]."""
        if value not in self._partners:
            self._partners[value] = self.Gather(value, self._partners[None], axis=0)
        return self._partners[value]

    # Images.

    def fill(self, pixel: float, image: Value) -> Value:
        """A stored pixel times its scale as the network sees it, [1, C, 1, 1]."""
        return self.by_channel((pixel - self._mean(image)) / self._std(image), image)

    def stored(self, image: Value) -> Value:
        """The image as it was stored, times its scale."""
        done = self.facts.preprocessing
        if done.std:
            image = self.Mul(image, self.by_channel(self._std(image), image))
        return self.Add(image, self.by_channel(self._mean(image), image)) if done.mean else image

    def preprocessed(self, image: Value) -> Value:
        """The inverse of `stored`."""
        done = self.facts.preprocessing
        if done.mean:
            image = self.Sub(image, self.by_channel(self._mean(image), image))
        return self.Div(image, self.by_channel(self._std(image), image)) if done.std else image

    @property
    def white(self) -> float:
        """The largest stored pixel times its scale."""
        return 255.0 * self.facts.preprocessing.scale

    def by_channel(self, numbers: np.ndarray[Any, Any], image: Value) -> Value:
        """One number a channel as a constant [1, C, 1, 1]."""
        return self.builder.constant(numbers.reshape(1, -1, 1, 1), image.dtype)

    def _mean(self, image: Value) -> np.ndarray[Any, Any]:
        return np.array(self.facts.preprocessing.mean or [0.0] * sizes(image)[0])

    def _std(self, image: Value) -> np.ndarray[Any, Any]:
        return np.array(self.facts.preprocessing.std or [1.0] * sizes(image)[0])


def emit_all(builder: Builder, augmentations: Sequence[Augmentation], batch: Batch, facts: Facts) -> Batch:
    """Emit `augmentations` one after another, each in a scope of its own: ``augment/flip``."""
    counts: dict[str, int] = {}
    for augmentation in augmentations:
        kind = augmentation.kind
        counts[kind] = counts.get(kind, 0) + 1
        name = f"augment/{kind}" + (f"_{counts[kind]}" if counts[kind] > 1 else "")
        with builder.scope(name):
            batch = augmentation.emit(Call(builder, name, facts), batch)
        builder.rename(batch.images, name)
    return batch


def sizes(image: Value) -> tuple[int, int, int]:
    """Channels, height and width of images [N, C, H, W]."""
    _, channels, height, width = dims_of(image)
    assert isinstance(channels, int)
    assert isinstance(height, int)
    assert isinstance(width, int)
    return channels, height, width


def is_image(target: Sequence[Dim], image: Sequence[Dim]) -> bool:
    """Whether a target is itself an image of the input's size: [N, H, W] or [N, C, H, W]."""
    return len(image) == 4 and len(target) in (3, 4) and tuple(target[-2:]) == tuple(image[2:])
