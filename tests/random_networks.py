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
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from hypothesis import assume
from hypothesis import strategies as st

from cnnc.ir import Builder, Ops, TensorType, dims_of
from cnnc.opset import IR_VERSION, OPSET

Array = np.ndarray[Any, Any]
Draw = Any
DOUBLE = ir.DataType.DOUBLE
LEAST, MOST = 5, 30
"""Nodes of a network, constants not counted."""
LARGEST = 8
CLASSES = 3


@dataclass
class Growing:
    """A network under way: its graph, the numbers of its weights, and the images that layers may read."""

    op: Ops
    rng: np.random.Generator
    images: list[ir.Value] = field(default_factory=list)
    unread: list[ir.Value] = field(default_factory=list)
    weights: dict[str, Array] = field(default_factory=dict)

    @property
    def size(self) -> int:
        """How many nodes it has."""
        return sum(node.op_type != "Constant" for node in self.op.builder.graph)

    def weight(self, *dims: int, low: float | None = None) -> ir.Value:
        """A tensor to be trained; normal and scaled to its fan-in, or uniform in [low, low + 1)."""
        fan_in = math.prod(dims[1:]) if len(dims) > 1 else 1
        drawn = self.rng.standard_normal(dims) / math.sqrt(fan_in)
        values = drawn if low is None else low + self.rng.random(dims)
        value = self.op.builder.input(f"weight{len(self.weights)}", TensorType(DOUBLE, dims))
        self.weights[str(value.name)] = values
        return value

    def number(self, value: float) -> ir.Value:
        """A constant that is not trained."""
        return self.op.builder.constant(value, DOUBLE)

    def pick(self, draw: Draw) -> ir.Value:
        """An image that a layer is to read: of the last ones, as a rule."""
        return draw(st.sampled_from(self.images[-1:] * 3 + self.images[-4:]))

    def add(self, image: ir.Value, *read: ir.Value) -> None:
        """A layer gave an image."""
        self.unread = [value for value in self.unread if value not in read]
        self.images.append(image)
        self.unread.append(image)


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


Layer = Callable[[Draw, Growing, ir.Value], ir.Value | None]
LAYERS: list[Layer] = []


def layer(*, weight: int = 1) -> Callable[[Layer], Layer]:
    """Register a layer, which is drawn as often as `weight` says."""

    def register(function: Layer) -> Layer:
        LAYERS.extend([function] * weight)
        return function

    return register


@st.composite
def random_networks(draw: Draw) -> RandomNetwork:
    batch = draw(st.sampled_from(["N", "N", 1, 2]))
    graph = ir.Graph([], [], nodes=[], opset_imports={"": OPSET}, name="random")
    net = Growing(Ops(Builder(graph)), np.random.default_rng(draw(st.integers(0, 2**16))))
    shape = (batch, draw(st.integers(1, 4)), *(draw(st.integers(4, LARGEST)) for _ in range(2)))
    image = net.op.builder.input("image", TensorType(DOUBLE, shape))
    # A 1×1 convolution comes first: it has a gradient that needs the one of what follows for its input.
    first = net.op.Conv(image, net.weight(shape[1], shape[1], 1, 1))
    net.add(net.op.Conv(first, net.weight(4, shape[1], 3, 3)))
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


def sizes(x: ir.Value) -> tuple[int, ...]:
    """Channels, height and width."""
    return tuple(int(d) for d in dims_of(x)[1:])


# Windows.


def _pads(draw: Draw, x: ir.Value, kernel: Sequence[int], dilations: Sequence[int], most: int) -> list[int]:
    """Pads with which at least one window fits."""
    spans = [d * (k - 1) + 1 for d, k in zip(dilations, kernel, strict=True)]
    begins, ends = ([draw(st.integers(0, min(most, k - 1))) for k in kernel] for _ in range(2))
    fits = (n + b + e >= s for n, b, e, s in zip(sizes(x)[1:], begins, ends, spans, strict=True))
    return [*begins, *ends] if all(fits) else []


def _pair(draw: Draw, low: int, high: int) -> list[int]:
    return [draw(st.integers(low, high)) for _ in range(2)]


def _drops_last(x: ir.Value, window: dict[str, Any], dilations: Sequence[int]) -> bool:
    """Whether ceil_mode adds a window that begins in the end pad, which runtimes leave out."""
    axes = zip(
        *(sizes(x)[1:], window["kernel_shape"], window["strides"], dilations),
        *(window["pads"][:2], window["pads"][2:]),
        strict=True,
    )
    return any(-((d * (k - 1) + 1 - n - b - e) // s) * s >= n + b for n, k, s, d, b, e in axes)


@layer(weight=5)
def conv(draw: Draw, net: Growing, x: ir.Value) -> ir.Value | None:
    channels = sizes(x)[0]
    kernel, dilations = _pair(draw, 1, 3), draw(st.sampled_from([[1, 1], [1, 1], [2, 1], [2, 2]]))
    group = draw(st.sampled_from([g for g in (1, 1, 2, channels) if channels % g == 0]))
    out = group * draw(st.integers(1, 2)) if group > 1 else draw(st.integers(1, 5))
    window: dict[str, Any] = {"strides": draw(st.sampled_from([[1, 1], [1, 1], [2, 2], [1, 2]]))}
    if draw(st.integers(0, 3)) == 0 and dilations == [1, 1]:
        window["auto_pad"] = draw(st.sampled_from(["SAME_UPPER", "SAME_LOWER"]))
    else:
        window |= {"pads": _pads(draw, x, kernel, dilations, 2), "dilations": dilations}
        if not window["pads"]:
            return None
    bias = [net.weight(out)] if draw(st.booleans()) else []
    weight = net.weight(out, channels // group, *kernel)
    y: ir.Value = net.op.Conv(x, weight, *bias, group=group, **window)
    return y


@layer(weight=2)
def conv_transpose(draw: Draw, net: Growing, x: ir.Value) -> ir.Value | None:
    channels, *space = sizes(x)
    kernel, strides = _pair(draw, 1, 3), draw(st.sampled_from([[1, 1], [2, 2], [1, 2]]))
    pads = [*(draw(st.integers(0, k - 1)) for k in kernel * 2)]
    after = [
        (n - 1) * s + k - b - e
        for n, s, k, b, e in zip(space, strides, kernel, pads[:2], pads[2:], strict=True)
    ]
    if min(after) < 1 or max(after) > LARGEST + 2:
        return None
    group = draw(st.sampled_from([g for g in (1, 2, channels) if channels % g == 0]))
    outer = draw(st.integers(1, 3)) if group == 1 else 1
    added = [draw(st.integers(0, s - 1)) for s in strides]
    bias = [net.weight(group * outer)] if draw(st.booleans()) else []
    weight = net.weight(channels, outer, *kernel)
    y: ir.Value = net.op.ConvTranspose(
        x, weight, *bias, group=group, strides=strides, pads=pads, output_padding=added
    )
    return y


@layer(weight=3)
def pool(draw: Draw, net: Growing, x: ir.Value) -> ir.Value | None:
    kind = draw(st.sampled_from(["MaxPool", "MaxPool", "AveragePool", "LpPool"]))
    kernel, strides = _pair(draw, 1, 3), _pair(draw, 1, 2)
    dilations = draw(st.sampled_from([[1, 1], [1, 1], [2, 1]])) if kind == "MaxPool" else [1, 1]
    window: dict[str, Any] = {"kernel_shape": kernel, "strides": strides}
    # onnx's ReferenceEvaluator averages no windows with gaps between them where auto_pad says SAME.
    gaps = kind == "AveragePool" and any(k < s for k, s in zip(kernel, strides, strict=True))
    if draw(st.integers(0, 3)) == 0 and kind != "LpPool" and not gaps:
        window["auto_pad"] = draw(st.sampled_from(["SAME_UPPER", "SAME_LOWER"]))
    else:
        spans = [d * (k - 1) + 1 for d, k in zip(dilations, kernel, strict=True)]
        window["pads"] = _pads(draw, x, kernel, dilations, 1)
        if not window["pads"] or any(n < s for n, s in zip(sizes(x)[1:], spans, strict=True)):
            return None  # a window of nothing but pads has no largest element
        window["ceil_mode"] = draw(st.integers(0, 1))
        if window["ceil_mode"] and _drops_last(x, window, dilations):
            return None  # inference of our opset and runtimes differ: see test_foreign_windows.py
    if kind == "MaxPool":
        return net.op.MaxPool(x, dilations=dilations if "pads" in window else None, **window)
    if kind == "AveragePool":
        return net.op.AveragePool(x, count_include_pad=draw(st.integers(0, 1)), **window)
    # Its root has a pole at 0, which what a rectifier gives would meet.
    return net.op.LpPool(net.op.Softplus(x), p=draw(st.integers(1, 3)), **window)


@layer()
def gate(draw: Draw, net: Growing, x: ir.Value) -> ir.Value:
    """Squeeze and excite."""
    channels = sizes(x)[0]
    kind = draw(st.sampled_from(["GlobalAveragePool", "GlobalMaxPool"]))
    squeezed = net.op.builder.op(kind, x)
    gates = net.op.Sigmoid(net.op.Conv(squeezed, net.weight(channels, channels, 1, 1), net.weight(channels)))
    y: ir.Value = net.op.Mul(*draw(st.permutations([x, gates])))
    return y


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


# Elementwise.

ACTIVATIONS: list[tuple[str, dict[str, float]]] = [
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


# Branches that meet.


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


# Moving elements.


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
    widths = [0, 0, *_pair(draw, 0, 1), 0, 0, *_pair(draw, 0, 1)]
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
        factors = np.array([1, 1, *_pair(draw, 1, 2)], np.float32)
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
