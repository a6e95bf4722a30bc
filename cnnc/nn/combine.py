"""Layers that join values or other layers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from cnnc.checks import kind_of
from cnnc.errors import GraphFileError
from cnnc.nn.layer import Layer
from cnnc.nn.trace import Value, shown
from cnnc.source import user_line


@dataclass(frozen=True, eq=False)
class Add(Layer):
    """The sum of two or more values of one shape, as residual blocks need it. Raises ShapeError."""

    kind: ClassVar[str] = "add"

    def __call__(self, first: Value, second: Value, *more: Value) -> Value:
        """Add them from left to right."""
        call = self.call(first, second, *more)
        total = first
        for value in (second, *more):
            if value.shape != total.shape:
                raise call.error(
                    f"values of the shapes {shown(total.shape)} and {shown(value.shape)} can't be added.",
                    "Bring one to the other's shape, as with a 1×1 convolution of its channels and stride.",
                )
            total = call.op("Add", total, value)
        return total


@dataclass(frozen=True, eq=False)
class Concat(Layer):
    """Values one after another along `axis`, by default the channels; other sizes agree.

    Raises ShapeError.
    """

    kind: ClassVar[str] = "concat"
    axis: int = 1

    def __call__(self, first: Value, *more: Value) -> Value:
        """Concatenate them in this order."""
        call = self.call(first, *more)
        rank = len(first.shape)
        if not isinstance(self.axis, int) or not -rank <= self.axis < rank or self.axis % rank == 0:
            raise call.error(
                f"values {shown(first.shape)} can't be joined along axis {self.axis!r}.",
                f"Use an axis from 1 to {rank - 1}.",
            )
        axis = self.axis % rank
        for value in more:
            if len(value.shape) != rank or any(
                a != b and i != axis for i, (a, b) in enumerate(zip(first.shape, value.shape, strict=True))
            ):
                raise call.error(
                    f"values of the shapes {shown(first.shape)} and {shown(value.shape)} can't be joined "
                    f"along axis {axis}: the other sizes differ.",
                    "Bring them to the same size first, as with padding, stride or pooling.",
                )
        return call.op("Concat", first, *more, axis=axis)


class Sequential:
    """Layers, or any functions from value to value, one after another. Raises GraphFileError for others."""

    def __init__(self, *layers: Callable[[Value], Value]) -> None:
        self.where = user_line()
        self.layers = layers
        for i, layer in enumerate(layers, start=1):
            if not callable(layer):
                raise GraphFileError(
                    f"Sequential: part {i} is {kind_of(layer)}, not a layer or function.",
                    where=self.where,
                    hint="Write the layers as arguments: nn.Sequential(a, b, c)."
                    if isinstance(layer, list)
                    else "",
                )
            if isinstance(layer, type):
                raise GraphFileError(
                    f"Sequential: part {i} is the class {layer.__name__} itself.",
                    where=self.where,
                    hint=f"Write {layer.__name__}(…).",
                )

    def __call__(self, x: Value) -> Value:
        """Call the first on `x`, and each further one on what the one before it returned."""
        for i, layer in enumerate(self.layers, start=1):
            x = layer(x)
            if not isinstance(x, Value):
                raise GraphFileError(
                    f"Sequential: part {i} returned {kind_of(x)}, not a value of the network.",
                    where=self.where,
                )
        return x

    def __repr__(self) -> str:
        return f"Sequential({', '.join(map(repr, self.layers))})"
