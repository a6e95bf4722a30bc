"""Networks that nobody wrote: hypothesis composes a CNN of 5 to 30 nodes, with branches, as an ONNX model.

A `Growing` network holds images [N, C, H, W] that later layers may read. Each layer of `LAYERS` reads one of
them and gives a new one, or None where it can't take that image. In the end every image that nothing read yet
flows into the output [N, classes].

Ties. Elements of an image are equal only where they are copies of one another (padding, resizing, a
saturated activation), and then it makes no difference which of them a maximum's gradient goes to, so that no
draw is thrown away for it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from hypothesis import assume
from hypothesis import strategies as st
from random_layers import LAYERS, Draw, Growing, sizes
from random_layers.growing import DOUBLE, LARGEST

from cnnc.ir import Builder, Ops, TensorType, dims_of
from cnnc.opset import IR_VERSION, OPSET

LEAST, MOST = 5, 30
"""Nodes of a network, constants not counted."""
CLASSES = 3


@dataclass(frozen=True)
class RandomNetwork:
    """The model, in float64; `batch` is its symbol, or the size that the source fixes it to."""

    model: onnx.ModelProto
    batch: int | str

    def __repr__(self) -> str:
        nodes = (
            f"{n.op_type}({', '.join(n.input)}{''.join(f', {a.name}={_shown(a)}' for a in n.attribute)})"
            for n in self.model.graph.node
            if n.op_type != "Constant"
        )
        return f"batch {self.batch}: " + "; ".join(nodes)


def _shown(attribute: onnx.AttributeProto) -> Any:
    return onnx.helper.get_attribute_value(attribute)


@st.composite
def random_networks(draw: Draw) -> RandomNetwork:
    batches: list[int | str] = ["N", "N", 1, 2]
    batch = draw(st.sampled_from(batches))
    graph = ir.Graph([], [], nodes=[], opset_imports={"": OPSET}, name="random")
    net = Growing(Ops(Builder(graph)), np.random.default_rng(draw(st.integers(0, 2**16))))
    channels, *plane = draw(st.integers(1, 4)), *(draw(st.integers(4, LARGEST)) for _ in range(2))
    image = net.op.builder.input("image", TensorType(DOUBLE, (batch, channels, *plane)))
    # A 1×1 convolution comes first: it has a gradient that needs the one of what follows for its input.
    first = net.op.Conv(image, net.weight(channels, channels, 1, 1))
    net.add(net.op.Conv(first, net.weight(4, channels, 3, 3)))
    wanted = draw(st.integers(LEAST - 4, MOST - 8))
    for _ in range(3 * MOST):
        if net.size >= wanted:
            break
        x = net.pick(draw)
        y = draw(st.sampled_from(LAYERS))(draw, net, x)
        if y is not None:
            net.add(y, x)
    graph.outputs.append(_output(draw, net))
    assume(LEAST <= net.size <= MOST)
    return RandomNetwork(_model(graph, net), batch)


def _output(draw: Draw, net: Growing) -> ir.Value:
    """[N, classes] from what nothing read yet, or from the last few of them."""
    ends = []
    for image in net.unread[-2:]:
        head = draw(st.sampled_from([_pooled, _flat, _matrix]))
        ends.append(head(net, image))
    y = ends[0] if len(ends) == 1 else net.op.Sum(*ends)
    return net.op.LogSoftmax(y, axis=1) if draw(st.booleans()) else y


def _pooled(net: Growing, x: ir.Value) -> ir.Value:
    features = net.op.Flatten(net.op.GlobalAveragePool(x))
    return net.op.Gemm(features, net.weight(CLASSES, int(dims_of(x)[1])), net.weight(CLASSES), transB=1)


def _flat(net: Growing, x: ir.Value) -> ir.Value:
    length = math.prod(sizes(x))
    features = net.op.Reshape(x, [0, -1], dims=(dims_of(x)[0], length))
    return net.op.Add(net.op.MatMul(features, net.weight(length, CLASSES)), net.weight(CLASSES))


def _matrix(net: Growing, x: ir.Value) -> ir.Value:
    return net.op.Gemm(net.op.ReduceMean(x, [2, 3], keepdims=0), net.weight(sizes(x)[0], CLASSES), alpha=0.5)


def _model(graph: ir.Graph, net: Growing) -> onnx.ModelProto:
    """The graph with its weights as initializers."""
    model = ir.serde.serialize_model(ir.Model(graph, ir_version=IR_VERSION))
    image, *_ = model.graph.input
    del model.graph.input[1:]
    model.graph.initializer.extend(onnx.numpy_helper.from_array(a, name) for name, a in net.weights.items())
    assert image.name == "image"
    onnx.checker.check_model(model, full_check=True)
    return model
