"""Sliding windows: what Conv and the pools share. Shapes and pads as ONNX defines them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import onnx_ir as ir

from cnnc.errors import UnsupportedError
from cnnc.ir.types import dims_of, is_static


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

    @property
    def flips(self) -> bool:
        """Whether dx is a convolution of dy, with `flipped`: stride 1, pads from 0 to less than a window."""
        return all(s == 1 for s in self.strides) and min(*self.pads, *self.flipped.pads) >= 0

    @property
    def flipped(self) -> Window:
        """The window of the convolution of dy that gives dx; its filter is flipped in space."""
        pads = tuple(extent - 1 - pad for extent, pad in zip(self.extents * 2, self.pads, strict=True))
        return replace(self, pads=pads)

    def attributes(self) -> dict[str, Any]:
        """As attributes of a node."""
        return {key: list(value) for key, value in asdict(self).items()}


def window_of(node: ir.Node) -> Window:
    """The window of a Conv, a pool, or a gradient op of one, with defaults filled in and auto_pad resolved.

    Raises UnsupportedError where auto_pad needs a spatial size that is not static.
    """
    window, auto_pad = _stated(node)
    if auto_pad in ("NOTSET", "VALID"):
        return window
    sizes, counts = (dims_of(value)[2:] for value in (node.inputs[0], node.outputs[0]) if value is not None)
    totals = []
    for size, count, stride, extent in zip(sizes, counts, window.strides, window.extents, strict=True):
        if stride == 1:  # as many windows as elements, whatever their number
            totals.append(extent - 1)
        elif isinstance(size, int) and isinstance(count, int):
            totals.append(max((count - 1) * stride + extent - size, 0))
        else:
            raise _unsupported(node, f"auto_pad={auto_pad}, strides above 1 and the symbolic size {size}")
    return _share(window, totals, upper=auto_pad == "SAME_UPPER")


def transposed_window_of(node: ir.Node) -> Window:
    """The window of the Conv whose input gradient a ConvTranspose is, auto_pad and output_shape resolved.

    Where a side gets more padding than the other it is the end with SAME_UPPER, else the begin, as ONNX has
    it. Raises UnsupportedError where the pads depend on a spatial size that is not static, and where onnx's
    shape inference and runtimes differ in the size of the output.
    """
    window, auto_pad = _stated(node)
    added = tuple(node.attributes["output_padding"].as_ints()) if "output_padding" in node.attributes else ()
    added = added or (0,) * window.rank
    if any(more >= stride for more, stride in zip(added, window.strides, strict=True)):
        raise _unsupported(node, f"output_padding={list(added)}, not below strides={list(window.strides)}")
    if "output_shape" in node.attributes:
        sizes, x = node.attributes["output_shape"].as_ints(), node.inputs[0]
        assert x is not None
        counts = dims_of(x)[2:]
        if not is_static(counts):
            raise _unsupported(node, f"output_shape and the symbolic spatial sizes {list(counts)}")
        totals = [
            max((int(count) - 1) * stride + more + extent - size, 0)
            for size, count, stride, more, extent in zip(
                sizes, counts, window.strides, added, window.extents, strict=True
            )
        ]
    elif auto_pad in ("NOTSET", "VALID"):
        return window
    elif any(added):
        raise _unsupported(node, f"auto_pad={auto_pad} and output_padding={list(added)}")
    else:  # stride · input elements, unless strides leave gaps
        totals = [max(e - s, 0) for e, s in zip(window.extents, window.strides, strict=True)]
    return _share(window, totals, upper=auto_pad == "SAME_UPPER")


def _stated(node: ir.Node) -> tuple[Window, str]:
    """The window as the attributes state it, and auto_pad."""
    x = node.inputs[0]
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
    auto_pad = node.attributes["auto_pad"].as_string() if "auto_pad" in node.attributes else "NOTSET"
    pads = ints("pads", (0,) * 2 * rank) if auto_pad == "NOTSET" else (0,) * 2 * rank
    return Window(kernel, ints("strides", ones), pads, ints("dilations", ones)), auto_pad


def _share(window: Window, totals: Sequence[int], *, upper: bool) -> Window:
    """The window with the padding of each axis halved, the larger half at the end or at the begin."""
    small, large = [total // 2 for total in totals], [total - total // 2 for total in totals]
    return replace(window, pads=tuple(small + large if upper else large + small))


def _unsupported(node: ir.Node, what: str) -> UnsupportedError:
    return UnsupportedError(
        f"operator {node.op_type} (node '{node.name}') has no gradient with {what}.",
        where=node.metadata_props.get("cnnc.where", ""),
    )
