"""The geometry of a sliding window: kernel, stride, padding and dilation of convolutions and pools."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from cnnc.checks import one_of
from cnnc.errors import ShapeError
from cnnc.nn.layer import Layer
from cnnc.nn.trace import Call
from cnnc.source import user_line

Pair = tuple[int, int]
"""One number for height and one for width."""
Size = int | Pair
"""A pair, or one number for both."""
Padding = str | int | Pair
"""``"same"``, ``"valid"``, or the zeros on each side, of both or of height and width."""


@dataclass(frozen=True)
class Window:
    """A checked window. `padding` is "same" or the zeros on each side of height and width."""

    kernel: Pair
    stride: Pair
    padding: str | Pair
    dilation: Pair

    @classmethod
    def of(cls, layer: Layer, kernel: Size, stride: Size, padding: Padding, dilation: Size = 1) -> Window:
        """The window of a layer's fields. Raises ShapeError."""
        pads: str | Pair
        if isinstance(padding, str):
            one_of(type(layer).__name__, "padding", padding, ("same", "valid"), ShapeError)
            pads = "same" if padding == "same" else (0, 0)
        else:
            pads = pair(layer, "padding", padding, least=0)
        return cls(
            pair(layer, "kernel_size", kernel),
            pair(layer, "stride", stride),
            pads,
            pair(layer, "dilation", dilation),
        )

    def attributes(self, call: Call, height: int, width: int) -> dict[str, Any]:
        """The attributes of the ONNX operator on images of this size, pads explicit. Raises ShapeError."""
        sides = self._pads(0, height), self._pads(1, width)
        for i, (axis, size) in enumerate((("height", height), ("width", width))):
            padded = size + sum(sides[i])
            if self._extent(i) > padded:
                also = f" ({padded} with padding)" if padded > size else ""
                raise call.error(
                    f"its kernel covers {self._extent(i)} pixels, more than the input's {axis} of {size}"
                    f"{also}.",
                    'Use a smaller kernel or padding="same", or pool less before it.',
                )
        (top, bottom), (left, right) = sides
        return {"kernel_shape": self.kernel, "strides": self.stride, "pads": [top, left, bottom, right]}

    def _extent(self, i: int) -> int:
        """Pixels from the first to the last that the kernel touches."""
        return (self.kernel[i] - 1) * self.dilation[i] + 1

    def _pads(self, i: int, size: int) -> Pair:
        """Zeros before and after. "same" gives ceil(size / stride) outputs; an odd zero goes to the end."""
        if isinstance(self.padding, tuple):
            return self.padding[i], self.padding[i]
        steps = -(-size // self.stride[i]) - 1
        total = max(0, steps * self.stride[i] + self._extent(i) - size)
        return total // 2, total - total // 2


def pair(layer: Layer, field: str, value: Size, least: int = 1) -> Pair:
    """`value` as a pair of checked integers. Raises ShapeError."""
    if not isinstance(value, tuple | list):
        value = (value, value)
    if len(value) != 2:
        raise ShapeError(
            f"{type(layer).__name__}: {field} must be one integer or two, not {value!r}.",
            where=user_line(),
            hint="Two are taken as (height, width).",
        )
    return layer.size(field, value[0], least), layer.size(field, value[1], least)
