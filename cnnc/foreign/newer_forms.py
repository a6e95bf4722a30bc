"""Newer forms of operators, and those that our opset says with other operators."""

from __future__ import annotations

import math

import numpy as np
from onnx import NodeProto

from cnnc.foreign.emit import Emit, Form, integers
from cnnc.foreign.volume_forms import grid_sample_volume


def resize(emit: Emit) -> list[NodeProto] | None:
    """Empty tensors stood for absent inputs; and what TensorFlow's half pixels are in nearest resizing."""
    inputs = ["" if name and _is_empty(emit, name) else name for name in emit.node.input]
    given = dict(emit.attributes)
    coordinates = given.get("coordinate_transformation_mode")
    if coordinates != "tf_crop_and_resize" and len(inputs) > 1:
        inputs[1] = ""
    if coordinates == "tf_half_pixel_for_nn":
        if (given.get("mode", "nearest"), given.get("nearest_mode")) != ("nearest", "floor"):
            raise emit.unsupported("has tf_half_pixel_for_nn, but is not nearest with nearest_mode=floor")
        # ⌊(i + 1/2)/s⌋ = ⌊((i + 1/2)/s - 1/2) + 1/2⌋
        given |= {"coordinate_transformation_mode": "half_pixel", "nearest_mode": "round_prefer_ceil"}
    if given.get("keep_aspect_ratio_policy", "stretch") != "stretch" and "axes" not in given:
        raise emit.unsupported("keeps the aspect ratio of all axes, the batch among them: it must name axes")
    if inputs == list(emit.node.input) and given == emit.attributes:
        return None
    return emit.put("Resize", inputs, **given)


def _is_empty(emit: Emit, name: str) -> bool:
    array = emit.facts.known(name)
    return array is not None and array.size == 0


def group_normalization(emit: Emit) -> list[NodeProto]:
    """As reshapes around InstanceNormalization. Scale and bias are one a group before opset 21, else one a
    channel.
    """
    x, scale, bias = emit.node.input
    groups, rank = emit.attributes["num_groups"], emit.facts.rank(x)
    dtype = emit.typed(0).dtype
    grouped = emit.op("Reshape", x, integers([0, groups, -1]))
    normal = emit.op(
        "InstanceNormalization",
        grouped,
        np.ones(groups, dtype),
        np.zeros(groups, dtype),
        epsilon=emit.attributes.get("epsilon"),
    )
    by_channel = emit.version >= 21
    shape = emit.op("Shape", x)
    if by_channel:
        normal = emit.op("Reshape", normal, shape)
    axes = integers(range(1, rank - 1 if by_channel else 2))
    scaled = emit.op("Mul", normal, emit.op("Unsqueeze", scale, axes) if len(axes) else scale)
    shift = emit.op("Unsqueeze", bias, axes) if len(axes) else bias
    if by_channel:
        return emit.put("Add", [scaled, shift])
    return emit.put("Reshape", [emit.op("Add", scaled, shift), shape])


def mean_variance_normalization(emit: Emit) -> list[NodeProto]:
    """(x - mean) / (deviation + ε), as the function that ONNX defines it by; that one is float32 alone."""
    x, axes = emit.input(0), integers(emit.attributes.get("axes", [0, 2, 3]))
    centred = emit.op("Sub", x, emit.op("ReduceMean", x, axes))
    variance = emit.op("ReduceMean", emit.op("Mul", centred, centred), axes)
    return emit.put("Div", [centred, emit.op("Add", emit.op("Sqrt", variance), emit.typed(1e-9))])


def celu(emit: Emit) -> list[NodeProto]:
    """α·Elu(x/α); Barron, 2017. Celu itself is for float32 only."""
    x, alpha = emit.input(0), emit.attributes.get("alpha", 1.0)
    if alpha <= 0.0:
        raise emit.unsupported(f"has alpha={alpha:g}, which must be positive")
    return emit.put("Mul", [emit.op("Elu", emit.op("Div", x, emit.typed(alpha))), emit.typed(alpha)])


# Newer forms.


def gelu(emit: Emit) -> list[NodeProto]:
    """x·Φ(x), or its approximation by tanh; Hendrycks and Gimpel, 2016."""
    return gelu_of(emit, emit.input(0), emit.attributes.get("approximate", "none"))


def gelu_of(emit: Emit, x: str, approximate: str) -> list[NodeProto]:
    """Gelu of any value of the node's type."""
    if approximate == "tanh":
        cube = emit.op("Mul", emit.op("Mul", emit.op("Mul", x, x), x), emit.typed(0.044715))
        inner = emit.op("Mul", emit.op("Add", x, cube), emit.typed(math.sqrt(2 / math.pi)))
        share = emit.op("Tanh", inner)
    else:
        share = emit.op("Erf", emit.op("Mul", x, emit.typed(1 / math.sqrt(2))))
    half = emit.op("Mul", x, emit.typed(0.5))
    return emit.put("Mul", [half, emit.op("Add", share, emit.typed(1.0))])


def swish(emit: Emit) -> list[NodeProto]:
    """x·sigmoid(αx); Ramachandran et al., 2017."""
    x, alpha = emit.input(0), emit.attributes.get("alpha", 1.0)
    return emit.put(
        "Mul", [x, emit.op("Sigmoid", x if alpha == 1.0 else emit.op("Mul", x, emit.typed(alpha)))]
    )


def rms_normalization(emit: Emit) -> list[NodeProto]:
    """x / √(mean(x²) + ε) · scale over the last axes; Zhang and Sennrich, 2019."""
    axis, epsilon = emit.attributes.get("axis", -1), emit.attributes.get("epsilon", 1e-5)
    return rms_normalization_of(emit, emit.input(0), emit.input(1), axis, epsilon)


def rms_normalization_of(emit: Emit, x: str, scale: str, axis: int, epsilon: float) -> list[NodeProto]:
    """That of any value of the rank and type of the node's first input."""
    rank = emit.facts.rank(emit.input(0))
    mean = emit.op("ReduceMean", emit.op("Mul", x, x), integers(range(axis % rank, rank)))
    root = emit.op("Sqrt", emit.op("Add", mean, emit.typed(epsilon)))
    return emit.put("Mul", [emit.op("Div", x, root), scale], emit.node.output[:1])


def grid_sample(emit: Emit) -> list[NodeProto]:
    """Since opset 20 the modes have other names, and volumes can be sampled: by GatherElements here."""
    mode = emit.attributes.pop("mode", "linear")
    if emit.facts.rank(emit.input(0)) == 5:
        return grid_sample_volume(emit, mode)
    names = {"linear": "bilinear", "cubic": "bicubic"}
    return emit.put("GridSample", emit.node.input, mode=names.get(mode, mode), **emit.attributes)


def space_to_depth(emit: Emit) -> list[NodeProto] | None:
    """Channels outermost (CRD) by reshapes around a transposition."""
    if emit.attributes.get("mode", "DCR") == "DCR":
        return emit.put("SpaceToDepth", emit.node.input, blocksize=emit.attributes["blocksize"])
    block, sizes = emit.attributes["blocksize"], emit.facts.dims(emit.input(0))[1:]
    if None in sizes:
        raise emit.unsupported("has mode='CRD' and an input of unknown sizes")
    channels, *space = (size for size in sizes if size is not None)
    height, width = (size // block for size in space)
    blocks = emit.op("Reshape", emit.input(0), integers([0, channels, height, block, width, block]))
    blocks = emit.op("Transpose", blocks, perm=[0, 1, 3, 5, 2, 4])
    return emit.put("Reshape", [blocks, integers([0, channels * block**2, height, width])])


def dft(emit: Emit) -> list[NodeProto]:
    """Since opset 20 the axis is an input, and the last but one where it is absent."""
    axis = emit.facts.known(emit.input(2)) if emit.input(2) else np.asarray(-2)
    if axis is None or axis.size != 1:
        raise emit.unsupported("transforms along an axis that is computed")
    rank = emit.facts.rank(emit.input(0))
    return emit.put("DFT", emit.node.input[:2], axis=int(axis.item()) % rank, **emit.attributes)


def cast_like(emit: Emit) -> list[NodeProto]:
    """What it casts to is known, so that it depends on one value only."""
    return emit.put("Cast", [emit.input(0)], to=emit.facts.dtype(emit.input(1)))


def without(*names: str) -> Form:
    """Attributes that only matter for element types that training does not have."""

    def form(emit: Emit) -> list[NodeProto] | None:
        if not emit.attributes.keys() & set(names):
            return None
        kept = {key: value for key, value in emit.attributes.items() if key not in names}
        return emit.put(emit.node.op_type, emit.node.input, **kept)

    form.__doc__ = f"Without {' and '.join(names)}: they matter for narrower floats alone."
    return form


def wrap(emit: Emit) -> list[NodeProto] | None:
    """Padding by what lies at the other end; whole copies where it reaches further."""
    if emit.attributes.get("mode") != "wrap":
        return None
    pads, sizes = emit.facts.known(emit.input(1)), emit.facts.dims(emit.input(0))
    chosen = emit.facts.known(emit.input(3)) if emit.input(3) else np.arange(len(sizes))
    if pads is None or chosen is None:
        raise emit.unsupported("pads by wrapping around, and computes how far")
    x = emit.input(0)
    for axis, begin, end in zip(chosen.tolist(), *np.split(pads, 2), strict=True):
        x = _wrap_axis(emit, x, axis % len(sizes), sizes[axis], int(begin), int(end))
    return emit.put("Identity", [x])


def _wrap_axis(emit: Emit, x: str, axis: int, size: int | None, begin: int, end: int) -> str:
    """One axis padded; negative pads cut off first."""

    def cut(start: int, stop: int) -> str:
        return emit.op("Slice", x, integers([start]), integers([stop]), integers([axis]))

    if begin == end == 0:
        return x
    if size is None:
        raise emit.unsupported("pads by wrapping around an axis of unknown size")
    first, size = max(-begin, 0), size - max(-begin, 0) - max(-end, 0)
    if first or end < 0:
        x = cut(first, first + size)
    (copies, before), (more, behind) = divmod(max(begin, 0), size), divmod(max(end, 0), size)
    parts = [cut(size - before, size)] if before else []
    parts += [x] * (copies + 1 + more)
    parts += [cut(0, behind)] if behind else []
    return emit.op("Concat", *parts, axis=axis) if len(parts) > 1 else x
