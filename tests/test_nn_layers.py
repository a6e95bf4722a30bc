"""Each layer's shapes, nodes, parameters and values."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from exported import exported
from traced import Array, Model, parameters, run, trace

from cnnc import nn
from cnnc.initial import draw
from cnnc.ir import dims_of
from cnnc.nn.trace import Call

SHAPES: list[tuple[Model, tuple[int, ...], tuple[int, ...]]] = [
    (nn.Conv2d(8, 3), (3, 10, 12), (8, 8, 10)),
    (nn.Conv2d(8, 3, stride=2), (3, 10, 13), (8, 4, 6)),
    (nn.Conv2d(8, (3, 5), padding=(1, 2)), (3, 10, 12), (8, 10, 12)),
    (nn.Conv2d(8, 3, padding=2), (3, 10, 12), (8, 12, 14)),
    (nn.Conv2d(8, 3, dilation=2), (3, 10, 12), (8, 6, 8)),
    (nn.Conv2d(8, 3, stride=(1, 2), padding="same"), (3, 10, 13), (8, 10, 7)),
    (nn.Conv2d(8, 4, padding="same", dilation=2), (3, 10, 13), (8, 10, 13)),
    (nn.Conv2d(6, 3, groups=3), (3, 10, 12), (6, 8, 10)),
    (nn.Conv2d(8, 10), (3, 10, 12), (8, 1, 3)),
    (nn.MaxPool2d(2), (3, 10, 13), (3, 5, 6)),
    (nn.MaxPool2d(3, stride=2, padding=1), (3, 10, 13), (3, 5, 7)),
    (nn.MaxPool2d(3, stride=2, padding="same"), (3, 10, 13), (3, 5, 7)),
    (nn.MaxPool2d((2, 1)), (3, 10, 13), (3, 5, 13)),
    (nn.AvgPool2d(2), (3, 10, 13), (3, 5, 6)),
    (nn.AvgPool2d(3, stride=1, padding=1), (3, 10, 13), (3, 10, 13)),
    (nn.GlobalAvgPool2d(), (3, 10, 13), (3,)),
    (nn.Flatten(), (3, 10, 13), (390,)),
    (nn.Flatten(), (7,), (7,)),
    (nn.Dense(5), (7,), (5,)),
    (nn.BatchNorm2d(), (3, 10, 13), (3, 10, 13)),
    (nn.Dropout(0.5), (7,), (7,)),
    (nn.ReLU(), (3, 10, 13), (3, 10, 13)),
    (nn.LeakyReLU(), (7,), (7,)),
    (nn.Sigmoid(), (7,), (7,)),
    (nn.Tanh(), (7,), (7,)),
    (nn.GELU(), (7,), (7,)),
    (nn.Softmax(), (7,), (7,)),
    (lambda x: nn.Add()(x, x, x), (3, 4, 4), (3, 4, 4)),
    (lambda x: x + nn.ReLU()(x), (3, 4, 4), (3, 4, 4)),
    (lambda x: nn.Concat()(x, nn.Conv2d(5, 1)(x)), (3, 4, 4), (8, 4, 4)),
    (lambda x: nn.Concat(axis=-1)(x, x), (3, 4, 4), (3, 4, 8)),
    (nn.Sequential(), (7,), (7,)),
    (nn.Sequential(nn.Conv2d(4, 3), nn.Sequential(nn.Flatten(), nn.Dense(2))), (1, 5, 5), (2,)),
]


def name(value: object) -> str:
    """The name of a row, the same in every process: without addresses."""
    return str(value)[:60].split(" at 0x")[0]


@pytest.mark.parametrize(("layer", "sizes", "expected"), SHAPES, ids=name)
def test_shape(layer: Model, sizes: tuple[int, ...], expected: tuple[int, ...]) -> None:
    """What the trace infers is what ONNX Runtime computes, for any batch."""
    network = trace(layer, *sizes)
    assert dims_of(network.output) == ("N", *expected)
    network = trace(lambda x: nn.Sigmoid()(layer(x)), *sizes)
    feeds = parameters(network)
    (y,) = run(network.graph, {"x": np.ones((2, *sizes), np.float32), **feeds})
    assert y.shape == (2, *expected)


def test_every_layer_has_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: set[type] = {type(layer) for layer, _, _ in SHAPES}
    begin = nn.Layer.call

    def call(layer: nn.Layer, *inputs: nn.Value) -> Call:
        tried.add(type(layer))
        return begin(layer, *inputs)

    monkeypatch.setattr(nn.Layer, "call", call)
    for layer, sizes, _ in SHAPES:
        trace(layer, *sizes)
    assert exported(nn, nn.Layer) <= tried


@pytest.mark.parametrize(
    ("size", "kernel", "stride", "dilation", "pads"),
    [
        *((5, 3, 2, 1, (1, 1)), (6, 3, 2, 1, (0, 1)), (6, 2, 1, 1, (0, 1)), (28, 5, 1, 1, (2, 2))),
        *((8, 3, 1, 2, (2, 2)), (7, 1, 3, 1, (0, 0)), (224, 7, 2, 1, (2, 3)), (1, 4, 1, 1, (1, 2))),
    ],
)
def test_same_padding_is_tensorflows(
    size: int, kernel: int, stride: int, dilation: int, pads: tuple[int, int]
) -> None:
    network = trace(nn.Conv2d(1, (kernel, 1), (stride, 1), "same", (dilation, 1)), 1, size, 3)
    node = network.graph.node("conv1")
    assert list(node.attributes["pads"].as_ints()) == [pads[0], 0, pads[1], 0]
    assert dims_of(network.output) == ("N", 1, math.ceil(size / stride), 3)


def test_parameters() -> None:
    """Names, shapes, kinds and first values."""
    network = trace(
        nn.Sequential(
            nn.Conv2d(8, 3, groups=2, weight_init="he_normal"),
            nn.BatchNorm2d(),
            nn.Flatten(),
            nn.Dense(5, bias_init=nn.initializers.constant(0.5)),
            nn.Dense(4, bias=False, name="head"),
        ),
        *(4, 5, 5),
    )
    zero, one = {"kind": "constant", "value": 0.0}, {"kind": "constant", "value": 1.0}
    assert [(p.name, p.type.dims, p.kind, p.initial, p.trainable) for p in network.parameters.values()] == [
        ("conv1.weight", (8, 2, 3, 3), "weight", {"kind": "normal", "std": math.sqrt(2 / 18)}, True),
        ("conv1.bias", (8,), "bias", zero, True),
        ("bn1.weight", (8,), "normalization", one, True),
        ("bn1.bias", (8,), "normalization", zero, True),
        ("bn1.running_mean", (8,), "statistic", zero, True),
        ("bn1.running_var", (8,), "statistic", one, True),
        ("dense1.weight", (72, 5), "weight", {"kind": "uniform", "bound": math.sqrt(6 / 77)}, True),
        ("dense1.bias", (5,), "bias", {"kind": "constant", "value": 0.5}, True),
        ("head.weight", (5, 4), "weight", {"kind": "uniform", "bound": math.sqrt(6 / 9)}, True),
    ]
    assert [v.name for v in network.graph.inputs] == ["x", *network.parameters]


@pytest.mark.parametrize(
    ("name", "variance"),
    [
        *(("glorot_uniform", 2 / 50), ("glorot_normal", 2 / 50)),
        *(("he_uniform", 2 / 20), ("he_normal", 2 / 20), ("zeros", 0.0), ("ones", 0.0)),
    ],
)
def test_initialisers_have_the_variance_of_their_papers(name: str, variance: float) -> None:
    description = nn.initializers.INITIALIZERS[name](20, 30)
    values = draw(description, (200, 200), np.float64, 0, "w")
    assert np.var(values) == pytest.approx(variance, rel=0.03)


def test_initialisers_with_arguments() -> None:
    assert nn.initializers.uniform(0.1)(1, 1) == {"kind": "uniform", "bound": 0.1}
    assert nn.initializers.normal(0.1)(1, 1) == {"kind": "normal", "std": 0.1}


def test_names_go_by_kind_and_order() -> None:
    network = trace(
        nn.Sequential(
            nn.Conv2d(2, 1, name="conv1"),
            nn.Conv2d(2, 1, activation="relu"),
            nn.Conv2d(2, 1),
            nn.MaxPool2d(1),
            nn.AvgPool2d(1),
            nn.GELU(),
        ),
        *(2, 4, 4),
    )
    names = [node.name for node in network.graph if node.op_type != "Constant"]
    assert names == [
        *("conv1", "conv2", "conv2/relu", "conv3", "pool1", "pool2"),
        *("gelu1/div", "gelu1/erf", "gelu1/add", "gelu1/mul", "gelu1"),
    ]


def test_a_layer_called_twice_shares_its_parameters() -> None:
    layer = nn.Conv2d(3, 1)
    network = trace(lambda x: layer(layer(x)), 3, 4, 4)
    assert list(network.parameters) == ["conv1.weight", "conv1.bias"]
    first, second = network.graph
    assert first.inputs[1] is second.inputs[1]
    assert (first.name, second.name) == ("conv1", "conv1_2")


def test_equal_layers_are_two_layers() -> None:
    network = trace(nn.Sequential(nn.Dense(3), nn.Dense(3)), 3)
    assert len(network.parameters) == 4


def test_nodes_know_the_users_line() -> None:
    network = trace(nn.Conv2d(3, 1, activation="gelu"), 3, 4, 4)
    line = test_nodes_know_the_users_line.__code__.co_firstlineno + 1
    for node in (node for node in network.graph if node.op_type != "Constant"):
        assert node.metadata_props["cnnc.where"] == f"test_nn_layers.py:{line}"
        assert node.metadata_props["cnnc.layer"] == "conv1"


def test_values_tell_shape_and_type() -> None:
    def model(x: nn.Value) -> nn.Value:
        assert (x.shape, x.dtype) == (("N", 3, 4, 4), "float32")
        assert repr(x) == "Value(x, [N, 3, 4, 4])"
        return x

    trace(model, 3, 4, 4)


def _gelu(x: Array) -> Array:
    return x * 0.5 * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))


@pytest.mark.parametrize(
    ("name", "formula"),
    [
        ("relu", lambda x: np.maximum(x, 0)),
        ("leaky_relu", lambda x: np.where(x > 0, x, 0.01 * x)),
        ("sigmoid", lambda x: 1 / (1 + np.exp(-x))),
        ("tanh", np.tanh),
        ("gelu", _gelu),
        ("softmax", lambda x: np.exp(x) / np.exp(x).sum(axis=1, keepdims=True)),
    ],
)
def test_activations(name: str, formula: Callable[[Array], Array]) -> None:
    x = np.linspace(-4, 4, 24, dtype=np.float32).reshape(2, 3, 4)
    (y,) = run(trace(nn.ACTIVATIONS[name](), 3, 4).graph, {"x": x})
    np.testing.assert_allclose(y, formula(x.astype(np.float64)), rtol=2e-6, atol=1e-7)


def test_every_activation_has_a_formula() -> None:
    marks = getattr(test_activations, "pytestmark", [])
    assert {row[0] for row in marks[0].args[1]} == nn.ACTIVATIONS.keys()


C, D, B = "conv1.", "dense1.", "bn1."

TORCH: list[tuple[Model, tuple[int, ...], Callable[..., Any]]] = [
    (nn.Conv2d(8, 3), (3, 9, 8), lambda f, x, p: f.conv2d(x, p[C + "weight"], p[C + "bias"])),
    (
        nn.Conv2d(8, (3, 2), stride=(2, 1), padding=(1, 0), dilation=(1, 2), groups=2, bias=False),
        (4, 9, 8),
        lambda f, x, p: f.conv2d(x, p[C + "weight"], None, (2, 1), (1, 0), (1, 2), 2),
    ),
    (
        nn.Conv2d(4, 3, stride=2, padding="same", activation="relu"),
        (3, 8, 9),
        lambda f, x, p: f.relu(f.conv2d(f.pad(x, (1, 1, 0, 1)), p[C + "weight"], p[C + "bias"], 2)),
    ),
    (nn.Dense(5), (7,), lambda f, x, p: x @ p[D + "weight"] + p[D + "bias"]),
    (nn.Dense(5, bias=False, activation="tanh"), (7,), lambda f, x, p: (x @ p[D + "weight"]).tanh()),
    (
        nn.BatchNorm2d(epsilon=1e-3),
        (3, 5, 4),
        lambda f, x, p: f.batch_norm(
            *(x, p[B + "running_mean"], p[B + "running_var"], p[B + "weight"], p[B + "bias"]), eps=1e-3
        ),
    ),
    (nn.MaxPool2d(2), (3, 7, 8), lambda f, x, p: f.max_pool2d(x, 2)),
    (nn.MaxPool2d(3, stride=2, padding=1), (3, 7, 8), lambda f, x, p: f.max_pool2d(x, 3, 2, 1)),
    (nn.AvgPool2d((2, 3), stride=1), (3, 7, 8), lambda f, x, p: f.avg_pool2d(x, (2, 3), 1)),
    (
        nn.AvgPool2d(3, stride=2, padding=1),
        (3, 7, 8),
        lambda f, x, p: f.avg_pool2d(x, 3, 2, 1, count_include_pad=False),
    ),
    (
        nn.AvgPool2d(3, stride=2, padding=1, count_include_pad=True),
        (3, 7, 8),
        lambda f, x, p: f.avg_pool2d(x, 3, 2, 1),
    ),
    (nn.GlobalAvgPool2d(), (3, 7, 8), lambda f, x, p: x.mean((2, 3))),
    (nn.Flatten(), (3, 7, 8), lambda f, x, p: x.flatten(1)),
    (nn.Dropout(0.9), (7,), lambda f, x, p: x),
    (nn.GELU(), (7,), lambda f, x, p: f.gelu(x)),
    (nn.LeakyReLU(0.2), (7,), lambda f, x, p: f.leaky_relu(x, 0.2)),
    (lambda x: nn.Add()(x, x, nn.Sigmoid()(x)), (3, 4), lambda f, x, p: 2 * x + x.sigmoid()),
    (
        lambda x: nn.Concat(2)(x, nn.Tanh()(x)),
        (3, 4),
        lambda f, x, p: f.pad(x, (0, 4)) + f.pad(x.tanh(), (4, 0)),
    ),
]


@pytest.mark.oracle
@pytest.mark.parametrize(("layer", "sizes", "theirs"), TORCH, ids=name)
def test_layers_compute_what_pytorch_does(
    layer: Model, sizes: tuple[int, ...], theirs: Callable[..., Any]
) -> None:
    torch = pytest.importorskip("torch", reason="the oracle is PyTorch, from the extra [oracle]")
    network = trace(layer, *sizes)
    x = np.random.default_rng(1).standard_normal((2, *sizes)).astype(np.float32)
    feeds = parameters(network)
    (y,) = run(network.graph, {"x": x, **feeds})
    tensors = {name: torch.from_numpy(array) for name, array in feeds.items()}
    expected = theirs(torch.nn.functional, torch.from_numpy(x), tensors).numpy()
    np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-5)
