"""Windows as our opset and ONNX Runtime have them.

ONNX Runtime refuses auto_pad where convolutions are dilated or strides leave gaps: the pads are told instead.
With ceil_mode, runtimes leave out a last window that begins in the end pad; shape inference does only since
opset 19. An axis where that happens gets just the end pad that its last window needs, so that both agree.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import NodeProto

from cnnc.foreign.emit import Emit, integers


@dataclass(frozen=True)
class Axis:
    """One spatial axis and the windows that slide along it."""

    size: int
    taps: int
    stride: int
    dilation: int
    begin: int
    end: int
    ceil: bool

    @property
    def extent(self) -> int:
        """How many elements a window spans."""
        return self.dilation * (self.taps - 1) + 1

    @property
    def windows(self) -> int:
        """How many there are, as runtimes count them."""
        room = self.size + self.begin + self.end - self.extent
        more = self.ceil and room % self.stride and not self.drops_last
        return room // self.stride + 1 + bool(more)

    @property
    def drops_last(self) -> bool:
        """Whether ceil_mode would add a window that begins in the end pad."""
        room = self.size + self.begin + self.end - self.extent
        return self.ceil and -(-room // self.stride) * self.stride >= self.size + self.begin

    @property
    def needed(self) -> int:
        """The end pad with which the last window is full; negative where trailing elements are not seen."""
        return (self.windows - 1) * self.stride + self.extent - self.size - self.begin

    def counts(self, include_pads: bool) -> npt.NDArray[np.int64]:
        """How many elements each window averages: never those that only ceil_mode adds."""
        low, high = (-self.begin, self.size + self.end) if include_pads else (0, self.size)
        starts = np.arange(self.windows) * self.stride - self.begin
        taps = starts[:, None] + np.arange(self.taps) * self.dilation
        return np.asarray(((taps >= low) & (taps < high)).sum(axis=1))


def conv(emit: Emit) -> list[NodeProto] | None:
    """A dilated convolution with its pads told."""
    if not _is_same(emit) or all(d == 1 for d in emit.attributes.get("dilations", [])):
        return None
    axes = _axes(emit)
    return emit.put("Conv", emit.node.input, **{**emit.attributes, **_told(axes)}) if axes else None


def pool(emit: Emit) -> list[NodeProto] | None:
    """A pool whose dilations our opset does not know, or whose ceil_mode it counts differently."""
    op, attributes = emit.node.op_type, dict(emit.attributes)
    if op == "AveragePool" and any(d != 1 for d in attributes.pop("dilations", [])):
        return _dilated_average(emit)
    gaps = _is_same(emit) and _leaves_gaps(emit)
    axes = _axes(emit) if attributes.get("ceil_mode") or gaps else []
    if gaps and axes:
        attributes |= {**_told(axes), "ceil_mode": None}
    if not any(axis.drops_last for axis in axes):
        return None if attributes == emit.attributes else emit.put(op, emit.node.input, **attributes)
    x, ends = emit.input(0), [axis.needed if axis.drops_last else axis.end for axis in axes]
    unseen = [i for i, end in enumerate(ends) if end < 0]
    if unseen:
        if len(emit.node.output) > 1:
            raise emit.unsupported("hands out indices, and leaves out elements at the end with ceil_mode")
        stops = [axes[i].size + ends[i] for i in unseen]
        places = (integers([0] * len(unseen)), integers(stops), integers([i + 2 for i in unseen]))
        x = emit.op("Slice", x, *places)
    pads = [*(axis.begin for axis in axes), *(max(end, 0) for end in ends)]
    return emit.put(op, [x], **{**attributes, "pads": pads, "auto_pad": None})


def _dilated_average(emit: Emit) -> list[NodeProto]:
    """The sum by a depthwise Conv with ones, over how many elements each window averages."""
    axes, channels = _axes(emit), emit.facts.dims(emit.input(0))[1]
    if not axes or channels is None:
        raise emit.unsupported("has dilations, and an input of unknown sizes")
    dtype = emit.typed(0).dtype
    total = emit.op(
        "Conv",
        emit.input(0),
        np.ones((channels, 1, *(axis.taps for axis in axes)), dtype),
        group=channels,
        strides=[axis.stride for axis in axes],
        dilations=[axis.dilation for axis in axes],
        pads=[*(axis.begin for axis in axes), *(max(axis.needed, 0) for axis in axes)],
    )
    include = bool(emit.attributes.get("count_include_pad"))
    counts = reduce(np.multiply.outer, (axis.counts(include) for axis in axes))
    return emit.put("Div", [total, counts.astype(dtype)])


def _is_same(emit: Emit) -> bool:
    return str(emit.attributes.get("auto_pad", "NOTSET")).startswith("SAME")


def _leaves_gaps(emit: Emit) -> bool:
    """Whether a stride is larger than the window."""
    strides, kernel = emit.attributes.get("strides", []), emit.attributes["kernel_shape"]
    return any(stride > taps for stride, taps in zip(strides, kernel, strict=False))


def _told(axes: Sequence[Axis]) -> dict[str, Any]:
    """Attributes that say the pads."""
    return {"pads": [*(axis.begin for axis in axes), *(axis.end for axis in axes)], "auto_pad": None}


def _axes(emit: Emit) -> list[Axis]:
    """The spatial axes with their pads, auto_pad resolved; none where a size is unknown."""
    given, sizes = emit.attributes, emit.facts.dims(emit.input(0))[2:]
    rank, auto_pad = len(sizes), given.get("auto_pad", "NOTSET")
    kernel, pads = given.get("kernel_shape"), given.get("pads") or [0] * 2 * rank
    if not kernel:
        kernel = [size for size in emit.facts.dims(emit.input(1))[2:] if size is not None]
    strides, dilations = (given.get(name) or [1] * rank for name in ("strides", "dilations"))
    if auto_pad != "NOTSET":
        pads = [0] * 2 * rank
    axes = []
    for i, size in enumerate(sizes):
        if size is None:
            return []
        begin, end, ceil = pads[i], pads[i + rank], bool(given.get("ceil_mode"))
        if auto_pad.startswith("SAME"):
            extent = dilations[i] * (kernel[i] - 1) + 1
            total = max((-(-size // strides[i]) - 1) * strides[i] + extent - size, 0)
            begin, end, ceil = total // 2, total - total // 2, False
            if auto_pad == "SAME_LOWER":
                begin, end = end, begin
        axes.append(Axis(size, kernel[i], strides[i], dilations[i], begin, end, ceil))
    return axes
