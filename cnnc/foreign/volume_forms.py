"""GridSample of volumes, which our opset does not have: its taps by GatherElements, weighted and summed.

A point of the grid reads one element of the volume (nearest) or the eight around it (linear). Padding
concerns the places of these taps alone: to interpolate between clipped or reflected places is to clip or
reflect the point. In ONNX Runtime's own order of operations, so that a point half-way rounds alike.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce

import numpy as np
from onnx import NodeProto, TensorProto

from cnnc.foreign.emit import Emit, integers


@dataclass(frozen=True)
class _Taps:
    """What the points read along one axis: places and weights of T taps, [N, T, P] each; no weights: 1."""

    places: str
    weights: str


def grid_sample_volume(emit: Emit, mode: str) -> list[NodeProto]:
    """x [N, C, D, H, W] at the points of a grid [N, D', H', W', 3], whose last axis is (w, h, d)."""
    x, grid = emit.input(0), emit.input(1)
    sizes, points = emit.facts.dims(x)[1:], emit.facts.dims(grid)[1:4]
    known = [size for size in (*sizes, *points) if size is not None]
    if mode not in ("nearest", "linear") or len(known) < 7:
        raise emit.unsupported("samples volumes of unknown sizes, or by cubes")
    (channels, *volume), count = known[:4], int(np.prod(known[4:]))
    flat = emit.op("Reshape", grid, integers([0, count, 3]))
    axes = [_taps(emit, flat, axis, size, mode) for axis, size in enumerate(volume)]
    taps = 2 if mode == "linear" else 1
    shapes = [integers([0, *(taps if i == axis else 1 for i in range(3)), count]) for axis in range(3)]
    places, weights = (
        [emit.op("Reshape", value, shape) for value, shape in zip(values, shapes, strict=True) if value]
        for values in ([axis.places for axis in axes], [axis.weights for axis in axes])
    )
    strides = [volume[1] * volume[2], volume[2], 1]
    rows = [emit.op("Mul", place, integers(stride)) for place, stride in zip(places, strides, strict=True)]
    place = reduce(lambda a, b: emit.op("Add", a, b), rows)
    place = emit.op("Expand", emit.op("Reshape", place, integers([0, 1, -1])), integers([1, channels, 1]))
    elements = emit.op("GatherElements", emit.op("Reshape", x, integers([0, 0, -1])), place, axis=2)
    elements = emit.op("Reshape", elements, integers([0, 0, taps**3, count]))
    if weights:
        weight = reduce(lambda a, b: emit.op("Mul", a, b), weights)
        elements = emit.op("Mul", elements, emit.op("Reshape", weight, integers([0, 1, taps**3, count])))
    total = emit.op("ReduceSum", elements, integers([2]), keepdims=0)
    return emit.put("Reshape", [total, integers([0, 0, *known[4:]])])


def _taps(emit: Emit, flat: str, axis: int, size: int, mode: str) -> _Taps:
    """Along spatial axis 0, 1 or 2 of `size` elements; the coordinates of the last stand first."""
    typed, aligned = emit.typed, bool(emit.attributes.get("align_corners", 0))
    unit = emit.op("Add", emit.op("Gather", flat, integers([2 - axis]), axis=2), typed(1.0))
    unit = emit.op("Reshape", unit, integers([0, 1, -1]))
    if aligned:
        point = emit.op("Mul", emit.op("Div", unit, typed(2.0)), typed(size - 1))
    else:
        point = emit.op("Div", emit.op("Sub", emit.op("Mul", unit, typed(size)), typed(1.0)), typed(2.0))
    if mode == "nearest":
        places, weights = emit.op("Round", point), ""
    else:
        base = emit.op("Floor", point)
        behind = emit.op("Sub", point, base)
        places = emit.op("Concat", base, emit.op("Add", base, typed(1.0)), axis=1)
        weights = emit.op("Concat", emit.op("Sub", typed(1.0), behind), behind, axis=1)
    kept = _padded(emit, places, size, aligned)
    if emit.attributes.get("padding_mode", "zeros") == "zeros":
        inside = emit.op("Cast", emit.op("Equal", kept, places), to=emit.facts.dtype(emit.input(0)))
        weights = emit.op("Mul", weights, inside) if weights else inside
    return _Taps(emit.op("Cast", kept, to=TensorProto.INT64), weights)


def _padded(emit: Emit, places: str, size: int, aligned: bool) -> str:
    """Places inside of the volume: clipped, or reflected at its ends, which lie half an element beyond."""
    typed = emit.typed
    if emit.attributes.get("padding_mode", "zeros") == "reflection":
        period = typed(max(2 * (size - 1 if aligned else size), 1))
        phase = emit.op(
            "Sub", places, emit.op("Mul", period, emit.op("Floor", emit.op("Div", places, period)))
        )
        mirrored = emit.op("Sub", typed(float(period) - (0.0 if aligned else 1.0)), phase)
        places = emit.op("Min", phase, mirrored)
    return emit.op("Clip", places, typed(0.0), typed(size - 1))
