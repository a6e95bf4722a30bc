"""Layers that move elements, or mix those of an axis."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from hypothesis import strategies as st

from cnnc.ir import dims_of
from random_layers.growing import LARGEST, Draw, Growing, layer, pair, sizes


@layer()
def crop(draw: Draw, net: Growing, x: ir.Value) -> ir.Value | None:
    size = sizes(x)[2]
    if size < 3:
        return None
    step = draw(st.sampled_from([1, 2, -1]))
    starts, ends = ([-1], [-size]) if step < 0 else ([draw(st.integers(0, 1))], [2**31 - 1])
    y: ir.Value = net.op.Slice(x, starts, ends, [3], [step])
    return y


@layer()
def pad(draw: Draw, net: Growing, x: ir.Value) -> ir.Value | None:
    mode = draw(st.sampled_from(["constant", "edge", "reflect"]))
    if max(sizes(x)[1:]) > LARGEST or min(sizes(x)[1:]) < 2:
        return None
    widths = [0, 0, *pair(draw, 0, 1), 0, 0, *pair(draw, 0, 1)]
    y: ir.Value = net.op.Pad(x, widths, net.number(0.5) if mode == "constant" else None, mode=mode)
    return y


@layer(weight=2)
def resize(draw: Draw, net: Growing, x: ir.Value) -> ir.Value | None:
    space = sizes(x)[1:]
    if max(space) > LARGEST // 2:
        return None
    kind = draw(st.sampled_from(["nearest", "linear", "linear", "cubic"]))
    modes = {
        "nearest": ("asymmetric", "floor"),
        "linear": (draw(st.sampled_from(["half_pixel", "align_corners"])), None),
        "cubic": ("half_pixel", None),
    }[kind]
    settings = {"mode": kind, "coordinate_transformation_mode": modes[0], "nearest_mode": modes[1]}
    if kind == "nearest" or draw(st.booleans()):
        factors = np.array([1, 1, *pair(draw, 1, 2)], np.float32)
        return net.op.Resize(x, None, factors, **settings)
    target = [draw(st.integers(2, LARGEST)) for _ in space]
    return net.op.Resize(x, None, None, target, axes=[2, 3], **settings)


@layer()
def depth_to_space(draw: Draw, net: Growing, x: ir.Value) -> ir.Value | None:
    channels, *space = sizes(x)
    if channels % 4 == 0 and max(space) <= LARGEST // 2:
        return net.op.DepthToSpace(x, blocksize=2, mode=draw(st.sampled_from(["DCR", "CRD"])))
    if channels <= 2 and all(n % 2 == 0 for n in space):
        return net.op.SpaceToDepth(x, blocksize=2)
    return None


@layer()
def shuffle(draw: Draw, net: Growing, x: ir.Value) -> ir.Value | None:
    """Channels of two groups, interleaved."""
    (batch, *_), (channels, *space) = dims_of(x), sizes(x)
    if channels % 2:
        return None
    first = batch if isinstance(batch, int) else 0
    apart = (2, channels // 2, *space)
    swapped = net.op.Transpose(net.op.Reshape(x, [first, *apart], dims=(batch, *apart)), perm=[0, 2, 1, 3, 4])
    return net.op.Reshape(swapped, [first, channels, *space], dims=(batch, channels, *space))


@layer()
def transpose(draw: Draw, net: Growing, x: ir.Value) -> ir.Value:
    y: ir.Value = net.op.Transpose(x, perm=draw(st.sampled_from([[0, 1, 3, 2], [0, 2, 3, 1]])))
    return y


@layer()
def gather(draw: Draw, net: Growing, x: ir.Value) -> ir.Value:
    """Channels by their numbers, some of them twice."""
    channels = sizes(x)[0]
    places = draw(st.lists(st.integers(-channels, channels - 1), min_size=1, max_size=channels))
    y: ir.Value = net.op.Gather(x, places, axis=1)
    return y


@layer()
def reduce(draw: Draw, net: Growing, x: ir.Value) -> ir.Value:
    """Over some axes, and back by broadcasting against x."""
    kind = draw(st.sampled_from(["ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin", "ReduceLogSumExp"]))
    axes = draw(st.sampled_from([[1], [2], [-1], [2, 3], [1, 3]]))
    y: ir.Value = net.op.Sub(x, net.op.builder.op(kind, x, axes, keepdims=1))
    return y


@layer()
def along_rows(draw: Draw, net: Growing, x: ir.Value) -> ir.Value:
    """A dense layer over the last axis, or over channels by Einsum."""
    channels, _, width = sizes(x)
    if draw(st.booleans()):
        return net.op.MatMul(x, net.weight(width, draw(st.integers(1, 5))))
    wide = draw(st.integers(1, 5))
    dims = (dims_of(x)[0], wide, *sizes(x)[1:])
    return net.op.Einsum(x, net.weight(channels, wide), equation="nchw,cd->ndhw", dims=dims)


@layer()
def attention(draw: Draw, net: Growing, x: ir.Value) -> ir.Value:
    """Rows that look at one another."""
    keys = net.op.Transpose(x, perm=[0, 1, 3, 2])
    looks = net.op.Softmax(net.op.Div(net.op.MatMul(x, keys), 2.0), axis=-1)
    return net.op.MatMul(looks, x)


@layer()
def running_sum(draw: Draw, net: Growing, x: ir.Value) -> ir.Value:
    flags = {name: draw(st.integers(0, 1)) for name in ("exclusive", "reverse")}
    axis = net.op.builder.constant(draw(st.sampled_from([2, 3])))
    return net.op.Mul(net.op.CumSum(x, axis, **flags), 0.25)


@layer()
def tile(draw: Draw, net: Growing, x: ir.Value) -> ir.Value | None:
    channels, *space = sizes(x)
    if channels * 2 > LARGEST or max(space) * 2 > LARGEST:
        return None
    return net.op.Tile(x, draw(st.sampled_from([[1, 2, 1, 1], [1, 1, 2, 1], [1, 1, 1, 2]])))
