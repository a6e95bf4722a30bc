"""Sliding windows: what Conv and the pools share. Shapes and pads as ONNX defines them."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import onnx_ir as ir

from cnnc.ir.types import dims_of


@dataclass(frozen=True)
class Window:
    """A window over the spatial axes; `pads` are all begins, then all ends, as in ONNX."""

    kernel_shape: tuple[int, ...]
    strides: tuple[int, ...]
    pads: tuple[int, ...]
    dilations: tuple[int, ...]

    @property
    def rank(self) -> int:
        """Number of spatial axes."""
        return len(self.kernel_shape)

    @property
    def begins(self) -> tuple[int, ...]:
        """Padding before the first element of each axis."""
        return self.pads[: self.rank]

    @property
    def ends(self) -> tuple[int, ...]:
        """Padding after the last element of each axis."""
        return self.pads[self.rank :]

    @property
    def extents(self) -> tuple[int, ...]:
        """How many elements a window spans on each axis, dilation counted."""
        return tuple(d * (k - 1) + 1 for k, d in zip(self.kernel_shape, self.dilations, strict=True))

    @property
    def is_pointwise(self) -> bool:
        """Whether every output element sees exactly one input element, the one at its own place."""
        return (
            all(k == 1 for k in self.kernel_shape)
            and all(s == 1 for s in self.strides)
            and not any(self.pads)
        )

    @property
    def tiles(self) -> bool:
        """Whether windows lie side by side: no overlap, gap, padding or dilation."""
        return (
            self.kernel_shape == self.strides and not any(self.pads) and all(d == 1 for d in self.dilations)
        )

    def attributes(self) -> dict[str, Any]:
        """As attributes of a node."""
        return {key: list(value) for key, value in asdict(self).items()}


def window_of(node: ir.Node) -> Window:
    """The window of a Conv, a pool, or a gradient op of one, with defaults filled in and auto_pad resolved.

    Raises ValueError where auto_pad needs a spatial size that is not static.
    """
    x, y = node.inputs[0], node.outputs[0]
    assert x is not None
    rank = len(dims_of(x)) - 2

    def ints(name: str, default: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(node.attributes[name].as_ints()) if name in node.attributes else default

    ones = (1,) * rank
    kernel: tuple[int, ...] = ints("kernel_shape", ())
    if not kernel:
        weight = node.inputs[1]
        assert weight is not None
        kernel = tuple(int(d) for d in dims_of(weight)[2:])
    window = Window(kernel, ints("strides", ones), ints("pads", (0,) * 2 * rank), ints("dilations", ones))
    auto_pad = node.attributes["auto_pad"].as_string() if "auto_pad" in node.attributes else "NOTSET"
    if auto_pad in ("NOTSET", "VALID"):
        return window
    begins, ends = [], []
    for axis in range(rank):
        size, out = dims_of(x)[axis + 2], dims_of(y)[axis + 2]
        if not isinstance(size, int) or not isinstance(out, int):
            raise ValueError(f"auto_pad={auto_pad} of node '{node.name}' needs static spatial sizes")
        total = max((out - 1) * window.strides[axis] + window.extents[axis] - size, 0)
        small, large = total // 2, total - total // 2
        begins.append(small if auto_pad == "SAME_UPPER" else large)
        ends.append(large if auto_pad == "SAME_UPPER" else small)
    return Window(kernel, window.strides, (*begins, *ends), window.dilations)
