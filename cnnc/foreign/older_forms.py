"""Older forms of operators: attributes that became inputs, and meanings that changed."""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import NodeProto

from cnnc.foreign.emit import Emit, integers


def axes_to_input(emit: Emit) -> list[NodeProto] | None:
    """Before opset 13 or 18 the axes were an attribute."""
    if "axes" not in emit.attributes:
        return None
    rest = {key: value for key, value in emit.attributes.items() if key != "axes"}
    return emit.put(emit.node.op_type, [emit.input(0), integers(emit.attributes["axes"])], **rest)


def squeeze(emit: Emit) -> list[NodeProto] | None:
    """Without axes it takes all of size 1: never the batch's, which may be 1 in a run."""
    sizes = emit.facts.dims(emit.input(0))
    if emit.input(1) or all(size is None for size in sizes):
        return None
    axes = [axis for axis, size in enumerate(sizes) if size == 1]
    if not axes:
        return emit.put("Identity", [emit.input(0)])
    return emit.put("Squeeze", [emit.input(0), integers(axes)])


def clip(emit: Emit) -> list[NodeProto]:
    """Before opset 11 the bounds were attributes."""
    bounds = [emit.attributes.get(key) for key in ("min", "max")]
    return emit.put("Clip", [emit.input(0), *("" if b is None else emit.typed(b) for b in bounds)])


def slice_(emit: Emit) -> list[NodeProto]:
    """Before opset 10 all were attributes."""
    given = [emit.attributes.get(key) for key in ("starts", "ends", "axes")]
    return emit.put("Slice", [emit.input(0), *("" if v is None else integers(v) for v in given)])


def pad(emit: Emit) -> list[NodeProto]:
    """Before opset 11 the pads were an attribute."""
    pads, value = integers(emit.attributes["pads"]), emit.typed(emit.attributes.get("value", 0.0))
    return emit.put("Pad", [emit.input(0), pads, value], mode=emit.attributes.get("mode"))


def top_k(emit: Emit) -> list[NodeProto]:
    """Before opset 10 k was an attribute."""
    k = integers([emit.attributes["k"]])
    return emit.put("TopK", [emit.input(0), k], axis=emit.attributes.get("axis"))


def split(emit: Emit) -> list[NodeProto]:
    """Before opset 18 it counted its outputs; before 13 the sizes were an attribute."""
    axis, sizes = emit.attributes.get("axis"), emit.attributes.get("split")
    if sizes is not None:
        return emit.put("Split", [emit.input(0), integers(sizes)], axis=axis)
    if emit.input(1):
        return emit.put("Split", [emit.input(0), emit.input(1)], axis=axis)
    return emit.put("Split", [emit.input(0)], axis=axis, num_outputs=len(emit.node.output))


def softmax(emit: Emit) -> list[NodeProto] | None:
    """Before opset 13 all axes from `axis` on were taken together."""
    x, rank = emit.input(0), emit.facts.rank(emit.input(0))
    axis = emit.attributes.get("axis", 1) % max(rank, 1)
    if axis == rank - 1:
        return emit.put(emit.node.op_type, [x], axis=-1)
    flat = emit.op(emit.node.op_type, emit.op("Flatten", x, axis=axis), axis=-1)
    return emit.put("Reshape", [flat, emit.op("Shape", x)])


def dropout(emit: Emit) -> list[NodeProto]:
    """In inference form, with its ratio as a constant; the compiler gives it its training form."""
    if len([name for name in emit.node.output if name]) > 1:
        raise emit.unsupported("hands out its mask, which only its own output should depend on")
    ratio = emit.input(1) or np.asarray(emit.attributes.get("ratio", 0.5), np.float32)
    known = emit.facts.known(ratio) if isinstance(ratio, str) else ratio
    if known is None or known.size != 1:
        raise emit.unsupported("does not say in one number how much it drops")
    if not 0 <= known.item() < 1:
        raise emit.unsupported(f"drops a share of {known.item():g}, which must be at least 0 and below 1")
    return emit.put("Dropout", [emit.input(0), ratio], [emit.node.output[0]])


def batch_normalization(emit: Emit) -> list[NodeProto]:
    """In inference form; the compiler gives it its training form."""
    if not emit.attributes.get("spatial", 1):
        raise emit.unsupported("normalises each pixel (spatial = 0), which later opsets do not have")
    kept = {key: emit.attributes.get(key) for key in ("epsilon", "momentum")}
    return emit.put("BatchNormalization", emit.node.input, [emit.node.output[0]], **kept)


def upsample(emit: Emit) -> list[NodeProto]:
    """What Resize is with asymmetric coordinates."""
    scales: Any = emit.input(1) or np.asarray(emit.attributes["scales"], np.float32)
    return resize_10(emit, scales)


def resize_10(emit: Emit, scales: Any = None) -> list[NodeProto]:
    """Before opset 11 coordinates were asymmetric, and nothing said how to round."""
    return emit.put(
        "Resize",
        [emit.input(0), "", emit.input(1) if scales is None else scales],
        mode=emit.attributes.get("mode"),
        coordinate_transformation_mode="asymmetric",
        nearest_mode="floor",
    )


def scatter(emit: Emit) -> list[NodeProto]:
    """What ScatterElements was called before opset 11."""
    return emit.put("ScatterElements", emit.node.input, axis=emit.attributes.get("axis"))


def roi_align(emit: Emit) -> list[NodeProto]:
    """Before opset 16 regions were not moved by half a pixel."""
    given = {**emit.attributes, "coordinate_transformation_mode": "output_half_pixel"}
    return emit.put("RoiAlign", emit.node.input, **given)
