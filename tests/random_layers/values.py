"""Layers that leave every element in its place: activations and normalisation."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import onnx_ir as ir
from hypothesis import strategies as st

from cnnc.ir import dims_of
from random_layers.growing import DOUBLE, Draw, Growing, layer, sizes

ACTIVATIONS: list[tuple[str, dict[str, Any]]] = [
    ("Relu", {}),
    ("Relu", {}),
    ("LeakyRelu", {"alpha": 0.25}),
    ("Elu", {"alpha": 0.5}),
    ("Elu", {}),
    ("Selu", {}),
    ("Sigmoid", {}),
    ("HardSigmoid", {"alpha": 0.25, "beta": 0.5}),
    ("HardSwish", {}),
    ("Tanh", {}),
    ("Softplus", {}),
    ("Softsign", {}),
    ("Mish", {}),
    ("Erf", {}),
    ("Abs", {}),
    ("Neg", {}),
    ("Sin", {}),
    ("Atan", {}),
    ("ThresholdedRelu", {"alpha": 0.25}),
    ("Identity", {}),
]


@layer(weight=4)
def activation(draw: Draw, net: Growing, x: ir.Value) -> ir.Value:
    name, attributes = draw(st.sampled_from(ACTIVATIONS))
    y: ir.Value = net.op.builder.op(name, x, **attributes)
    return y


@layer()
def prelu(draw: Draw, net: Growing, x: ir.Value) -> ir.Value:
    y: ir.Value = net.op.PRelu(x, net.weight(sizes(x)[0], 1, 1))
    return y


@layer()
def clip(draw: Draw, net: Growing, x: ir.Value) -> ir.Value:
    bounds = draw(st.sampled_from([(-0.75, 0.75), (None, 0.5), (-0.25, None), (0.0625, 6.0)]))
    y: ir.Value = net.op.Clip(x, *bounds)
    return y


@layer()
def swish(draw: Draw, net: Growing, x: ir.Value) -> ir.Value:
    y: ir.Value = net.op.Mul(x, net.op.Sigmoid(x))
    return y


@layer()
def softmax(draw: Draw, net: Growing, x: ir.Value) -> ir.Value:
    y: ir.Value = net.op.builder.op(
        draw(st.sampled_from(["Softmax", "LogSoftmax"])), x, axis=draw(st.sampled_from([1, 2, -1]))
    )
    return y


@layer()
def scale(draw: Draw, net: Growing, x: ir.Value) -> ir.Value:
    """A parameter that broadcasts."""
    channels, height, width = sizes(x)
    shape = draw(st.sampled_from([(1, channels, 1, 1), (channels, height, width), (width,), (height, 1)]))
    kind = draw(st.sampled_from(["Add", "Sub", "Mul"]))
    y: ir.Value = net.op.builder.op(kind, *draw(st.permutations([x, net.weight(*shape)])))
    return y


@layer()
def root(draw: Draw, net: Growing, x: ir.Value) -> ir.Value:
    """√(x² + 1/2), or its power or logarithm."""
    positive = net.op.Add(net.op.Mul(x, x), 0.5)
    kind = draw(st.sampled_from(["Sqrt", "Log", "Reciprocal", "Pow"]))
    return net.op.Pow(positive, net.number(0.75)) if kind == "Pow" else net.op.builder.op(kind, positive)


# Normalisation. Its ε is large: constant regions would else be magnified.


@layer(weight=3)
def batch_normalization(draw: Draw, net: Growing, x: ir.Value) -> ir.Value | None:
    channels = sizes(x)[0]
    if dims_of(x)[0] == 1 and sizes(x)[1:] == (1, 1):
        return None  # PyTorch refuses it
    statistics = [net.weight(channels), net.weight(channels, low=0.5)]
    scale, bias = net.weight(channels, low=0.5), net.weight(channels)
    y: ir.Value = net.op.BatchNormalization(x, scale, bias, *statistics, epsilon=0.1)
    return y


@layer()
def instance_normalization(draw: Draw, net: Growing, x: ir.Value) -> ir.Value | None:
    channels = sizes(x)[0]
    if sizes(x)[1:] == (1, 1):
        return None  # PyTorch refuses it
    y: ir.Value = net.op.InstanceNormalization(
        x, net.weight(channels, low=0.5), net.weight(channels), epsilon=0.1
    )
    return y


@layer()
def layer_normalization(draw: Draw, net: Growing, x: ir.Value) -> ir.Value:
    axis = draw(st.sampled_from([-1, -2, 1]))
    shape = sizes(x)[axis if axis < 0 else 0 :]
    affine = [net.weight(*shape, low=0.5), *([net.weight(*shape)] if draw(st.booleans()) else [])]
    y: ir.Value = net.op.LayerNormalization(x, *affine, axis=axis, epsilon=0.1)
    return y


@layer()
def local_response_normalization(draw: Draw, net: Growing, x: ir.Value) -> ir.Value:
    y: ir.Value = net.op.LRN(x, size=draw(st.sampled_from([1, 3, 5])), alpha=0.5, beta=0.75, bias=1.0)
    return y


@layer()
def group_normalization(draw: Draw, net: Growing, x: ir.Value) -> ir.Value | None:
    """As exporters write it: an InstanceNormalization of the groups, then a scale for each channel."""
    (batch, *_), (channels, *space) = dims_of(x), sizes(x)
    groups = draw(st.sampled_from([g for g in range(1, channels + 1) if channels % g == 0]))
    if channels * math.prod(space) == groups:
        return None
    grouped = net.op.Reshape(x, [0, groups, -1], dims=(batch, groups, channels * math.prod(space) // groups))
    ones = net.op.builder.constant(np.ones(groups), DOUBLE), net.op.builder.constant(np.zeros(groups), DOUBLE)
    normal = net.op.InstanceNormalization(grouped, *ones, epsilon=0.1)
    first = batch if isinstance(batch, int) else draw(st.sampled_from([0, -1]))
    back = net.op.Reshape(normal, [first, channels, *space], dims=(batch, channels, *space))
    return net.op.Add(net.op.Mul(back, net.weight(channels, 1, 1, low=0.5)), net.weight(channels, 1, 1))
