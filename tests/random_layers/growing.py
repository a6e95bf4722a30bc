"""A network under way, and the table of layers that it may get."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx_ir as ir
from hypothesis import strategies as st

from cnnc.ir import Ops, TensorType, dims_of

Array = np.ndarray[Any, Any]
Draw = st.DrawFn
DOUBLE = ir.DataType.DOUBLE
LARGEST = 8
"""Elements along an axis of an image, more or less."""


@dataclass
class Growing:
    """A network under way: its graph, the numbers of its weights, and the images that layers may read."""

    op: Ops
    rng: np.random.Generator
    images: list[ir.Value] = field(default_factory=list)
    unread: list[ir.Value] = field(default_factory=list)
    weights: dict[str, Array] = field(default_factory=dict)

    @property
    def size(self) -> int:
        """How many nodes it has."""
        return sum(node.op_type != "Constant" for node in self.op.builder.graph)

    def weight(self, *dims: int, low: float | None = None) -> ir.Value:
        """A tensor to be trained; normal and scaled to its fan-in, or uniform in [low, low + 1)."""
        fan_in = math.prod(dims[1:]) if len(dims) > 1 else 1
        drawn = self.rng.standard_normal(dims) / math.sqrt(fan_in)
        values = drawn if low is None else low + self.rng.random(dims)
        value = self.op.builder.input(f"weight{len(self.weights)}", TensorType(DOUBLE, dims))
        self.weights[str(value.name)] = values
        return value

    def number(self, value: float) -> ir.Value:
        """A constant that is not trained."""
        return self.op.builder.constant(value, DOUBLE)

    def pick(self, draw: Draw) -> ir.Value:
        """An image that a layer is to read: of the last ones, as a rule."""
        return draw(st.sampled_from(self.images[-1:] * 3 + self.images[-4:]))

    def add(self, image: ir.Value, *read: ir.Value) -> None:
        """A layer gave an image."""
        self.unread = [value for value in self.unread if value not in read]
        self.images.append(image)
        self.unread.append(image)


Layer = Callable[[Draw, Growing, ir.Value], ir.Value | None]
LAYERS: list[Layer] = []


def layer(*, weight: int = 1) -> Callable[[Layer], Layer]:
    """Register a layer, which is drawn as often as `weight` says."""

    def register(function: Layer) -> Layer:
        LAYERS.extend([function] * weight)
        return function

    return register


def sizes(x: ir.Value) -> tuple[int, ...]:
    """Channels, height and width."""
    return tuple(int(d) for d in dims_of(x)[1:])


def pair(draw: Draw, low: int, high: int) -> list[int]:
    return [draw(st.integers(low, high)) for _ in range(2)]
