"""Branches that meet, and values that part."""

from __future__ import annotations

import onnx_ir as ir
from hypothesis import strategies as st

from random_layers.growing import LARGEST, Draw, Growing, layer, sizes


def _like(draw: Draw, net: Growing, x: ir.Value, channels: int | None) -> ir.Value:
    """An image of the size of x, and of as many channels where that is asked for."""
    fitting = [
        image
        for image in net.images
        if sizes(image)[1:] == sizes(x)[1:] and channels in (None, sizes(image)[0])
    ]
    other = draw(st.sampled_from(fitting))
    if other is not x:
        net.unread = [value for value in net.unread if value is not other]
        return other
    wanted = channels or draw(st.integers(1, 4))
    branch: ir.Value = net.op.Conv(x, net.weight(wanted, sizes(x)[0], 3, 3), pads=[1, 1, 1, 1])
    return branch


@layer(weight=5)
def join(draw: Draw, net: Growing, x: ir.Value) -> ir.Value:
    kind = draw(st.sampled_from(["Add", "Add", "Sub", "Mul", "Sum", "Mean", "Max", "Min", "Div", "Where"]))
    pair = draw(st.permutations([x, _like(draw, net, x, sizes(x)[0])]))
    if kind == "Div":
        y: ir.Value = net.op.Div(pair[0], net.op.Add(net.op.Abs(pair[1]), 0.5))
        return y
    if kind == "Where":
        return net.op.Where(net.op.Greater(*pair), pair[0], net.op.Mul(pair[1], 0.5))
    if kind == "Mul":  # keeps products of products from growing
        pair = [pair[0], net.op.Tanh(pair[1])]
    return net.op.builder.op(kind, *pair)


@layer(weight=3)
def concat(draw: Draw, net: Growing, x: ir.Value) -> ir.Value | None:
    other = _like(draw, net, x, None)
    if sizes(x)[0] + sizes(other)[0] > LARGEST:
        return None
    return net.op.Concat(*draw(st.permutations([x, other])), axis=draw(st.sampled_from([1, -3])))


@layer()
def split(draw: Draw, net: Growing, x: ir.Value) -> ir.Value | None:
    channels = sizes(x)[0]
    if channels < 2:
        return None
    first = draw(st.integers(1, channels - 1))
    left, right = net.op.Split(x, [first, channels - first], axis=1, outputs=2)
    net.add(left)
    return right
