"""Every mistake in a network is told: the user's file and line, the layer, the shapes, what to change."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, cast

import pytest
from traced import trace

from cnnc import nn
from cnnc.errors import GraphFileError, ShapeError

seq = nn.Sequential

FIELDS: list[tuple[Callable[[], Any], str]] = [
    (lambda: nn.Conv2d(0, 3), "Conv2d: channels must be at least 1, not 0."),
    (lambda: nn.Conv2d(cast(Any, 2.5), 3), "Conv2d: channels must be an integer, not 2.5."),
    (lambda: nn.Conv2d(cast(Any, "8"), 3), "Conv2d: channels must be an integer, not '8'."),
    (lambda: nn.Conv2d(True, 3), "Conv2d: channels must be an integer, not True."),
    (lambda: nn.Conv2d(8, (3, -1)), "Conv2d: kernel_size must be at least 1, not -1."),
    (
        lambda: nn.Conv2d(8, cast(Any, (3, 3, 3))),
        "Conv2d: kernel_size must be one integer or two, not (3, 3, 3). Two are taken as (height, width).",
    ),
    (lambda: nn.Conv2d(8, 3, stride=0), "Conv2d: stride must be at least 1, not 0."),
    (lambda: nn.Conv2d(8, 3, padding=-1), "Conv2d: padding must be at least 0, not -1."),
    (lambda: nn.Conv2d(8, 3, padding="smae"), "Conv2d: there is no padding 'smae'. Did you mean 'same'?"),
    (lambda: nn.Conv2d(8, 3, dilation=0), "Conv2d: dilation must be at least 1, not 0."),
    (
        lambda: nn.Conv2d(8, 3, groups=3),
        "Conv2d: 3 groups don't divide its 8 channels. Choose channels that are a multiple of groups.",
    ),
    (
        lambda: nn.Conv2d(8, 3, activation="rlu"),
        "Conv2d: there is no activation 'rlu'. Did you mean 'relu'?",
    ),
    (
        lambda: nn.Conv2d(8, 3, activation="swish"),
        "Conv2d: there is no activation 'swish'. Known: gelu, leaky_relu, relu, sigmoid, softmax, tanh.",
    ),
    (
        lambda: nn.Conv2d(8, 3, weight_init="he_norm"),
        "Conv2d: there is no weight_init 'he_norm'. Did you mean 'he_normal'?",
    ),
    (
        lambda: nn.Dense(8, bias_init=cast(Any, 0)),
        "Dense: bias_init must be an initialiser or the name of one, not 0. "
        "Known: glorot_uniform, glorot_normal, he_uniform, he_normal, zeros, ones.",
    ),
    (lambda: nn.Dense(-4), "Dense: units must be at least 1, not -4."),
    (lambda: nn.Dense(4, activation="tan"), "Dense: there is no activation 'tan'. Did you mean 'tanh'?"),
    (
        lambda: nn.Dense(4, name="my layer"),
        "Dense: the name 'my layer' can't be used. "
        "A name begins with a letter and goes on with letters, digits, '_', '.' and '-'.",
    ),
    (
        lambda: nn.Dense(4, name="loss"),
        "Dense: the name 'loss' is the name of an input or output that every graph has. Choose another name.",
    ),
    (lambda: nn.MaxPool2d(0), "MaxPool2d: kernel_size must be at least 1, not 0."),
    (
        lambda: nn.AvgPool2d(2, padding=2),
        "AvgPool2d: a padding of 2 gives windows of 2 that see no pixel. "
        "Use a padding smaller than the kernel.",
    ),
    (lambda: nn.Dropout(1.0), "Dropout: rate must be a number at least 0 and below 1, not 1.0."),
    (lambda: nn.Dropout(float("nan")), "Dropout: rate must be a number at least 0 and below 1, not nan."),
    (
        lambda: nn.BatchNorm2d(momentum=1.5),
        "BatchNorm2d: momentum must be a number at least 0 and below 1, not 1.5.",
    ),
    (lambda: nn.BatchNorm2d(epsilon=0), "BatchNorm2d: epsilon must be a number above 0, not 0."),
    (lambda: nn.LeakyReLU(-1), "LeakyReLU: slope must be a number at least 0 and below 1, not -1."),
    (
        lambda: seq(nn.Flatten(), cast(Any, 3)),
        "Sequential: part 2 is an int, not a layer or function.",
    ),
    (
        lambda: seq(cast(Any, [nn.Flatten()])),
        "Sequential: part 1 is a list, not a layer or function. "
        "Write the layers as arguments: nn.Sequential(a, b, c).",
    ),
    (
        lambda: seq(cast(Any, nn.Flatten)),
        "Sequential: part 1 is the class Flatten itself. Write Flatten(…).",
    ),
    (lambda: nn.initializers.normal(-1), "normal: std must be a number at least 0, not -1."),
]

_shared = nn.Dense(4)

CALLS: list[tuple[Callable[[nn.Value], Any], tuple[int, ...], str]] = [
    (
        nn.Dense(10),
        (3, 4, 4),
        "dense1 (Dense): it takes vectors [N, features], but its input is [N, 3, 4, 4]. "
        "Put nn.Flatten() or nn.GlobalAvgPool2d() before it.",
    ),
    (
        nn.Conv2d(8, 3),
        (12,),
        "conv1 (Conv2d): it takes images [N, C, H, W], but its input is [N, 12]. Put it before the Flatten.",
    ),
    (
        nn.MaxPool2d(2, name="shrink"),
        (12,),
        "shrink (MaxPool2d): it takes images [N, C, H, W], but its input is [N, 12]. "
        "Put it before the Flatten.",
    ),
    (
        nn.BatchNorm2d(),
        (3, 12),
        "bn1 (BatchNorm2d): it takes images [N, C, H, W], but its input is [N, 3, 12].",
    ),
    (
        nn.Conv2d(8, 3, groups=4),
        (6, 9, 9),
        "conv1 (Conv2d): its 4 groups don't divide the 6 channels of its input [N, 6, 9, 9]. "
        "Choose groups that divide 6.",
    ),
    (
        nn.Conv2d(8, 5),
        (3, 9, 4),
        "conv1 (Conv2d): its kernel covers 5 pixels, more than the input's width of 4. "
        'Use a smaller kernel or padding="same", or pool less before it.',
    ),
    (
        nn.Conv2d(8, 3, padding=1, dilation=4),
        (3, 6, 9),
        "conv1 (Conv2d): its kernel covers 9 pixels, more than the input's height of 6 (8 with padding). "
        'Use a smaller kernel or padding="same", or pool less before it.',
    ),
    (
        nn.MaxPool2d(2),
        (3, 1, 1),
        "pool1 (MaxPool2d): its kernel covers 2 pixels, more than the input's height of 1. "
        'Use a smaller kernel or padding="same", or pool less before it.',
    ),
    (
        lambda x: x + nn.Conv2d(5, 1)(x),
        (3, 4, 4),
        "add1 (Add): values of the shapes [N, 3, 4, 4] and [N, 5, 4, 4] can't be added. "
        "Bring one to the other's shape, as with a 1×1 convolution of its channels and stride.",
    ),
    (
        lambda x: nn.Concat()(x, nn.MaxPool2d(2)(x)),
        (3, 4, 4),
        "concat1 (Concat): values of the shapes [N, 3, 4, 4] and [N, 3, 2, 2] can't be joined along axis 1: "
        "the other sizes differ. Bring them to the same size first, as with padding, stride or pooling.",
    ),
    (
        lambda x: nn.Concat()(x, nn.Flatten()(x)),
        (3, 4, 4),
        "concat1 (Concat): values of the shapes [N, 3, 4, 4] and [N, 48] can't be joined along axis 1: "
        "the other sizes differ. Bring them to the same size first, as with padding, stride or pooling.",
    ),
    (
        lambda x: nn.Concat(axis=0)(x, x),
        (3,),
        "concat1 (Concat): values [N, 3] can't be joined along axis 0. Use an axis from 1 to 1.",
    ),
    (
        nn.Softmax(axis=4),
        (3, 4, 4),
        "softmax1 (Softmax): axis 4 is none that softmax can go along in an input [N, 3, 4, 4]. "
        "Use an axis from 1 to 3.",
    ),
    (
        lambda x: _shared(nn.Dense(7)(_shared(x))),
        (3,),
        "dense1 (Dense): it is called a second time on an input of another size: its weight is [3, 4], and "
        "this input needs [7, 4]. Make a layer of its own for this input.",
    ),
    (
        nn.Dense(100_000),
        (100_000,),
        "dense1 (Dense): its weight [100000, 100000] has 10,000,000,000 elements; the most is 536,870,911. "
        "Make the layer, or what goes into it, smaller.",
    ),
    (
        lambda x: x + cast(Any, 1),
        (3,),
        "Add was called on an int, not on a value of the network. "
        "Layers are called on the model's argument and on what other layers return.",
    ),
    (
        seq(nn.Flatten(), lambda x: cast(Any, None)),
        (3,),
        "Sequential: part 2 returned None, not a value of the network.",
    ),
]


def _told(error: GraphFileError, text: str) -> None:
    assert re.fullmatch(r"test_nn_errors\.py:\d+: " + re.escape(text), str(error))


@pytest.mark.parametrize(("make", "text"), FIELDS, ids=[text[:60] for _, text in FIELDS])
def test_fields(make: Callable[[], Any], text: str) -> None:
    with pytest.raises(GraphFileError) as caught:
        make()
    _told(caught.value, text)


@pytest.mark.parametrize(("model", "sizes", "text"), CALLS, ids=[text[:60] for *_, text in CALLS])
def test_calls(model: Callable[[nn.Value], Any], sizes: tuple[int, ...], text: str) -> None:
    with pytest.raises(GraphFileError) as caught:
        trace(model, *sizes)
    _told(caught.value, text)


def test_the_line_is_where_the_layer_was_made() -> None:
    layer = nn.Dense(3)
    line = test_the_line_is_where_the_layer_was_made.__code__.co_firstlineno + 1
    with pytest.raises(ShapeError, match=f"^test_nn_errors.py:{line}: dense1"):
        trace(layer, 3, 4, 4)


def test_duplicate_names() -> None:
    first = nn.Dense(3, name="head")
    with pytest.raises(ShapeError) as caught:
        trace(seq(first, nn.Conv2d(3, 1, name="head")), 3)
    _told(
        caught.value,
        f"two layers have the name 'head': this Conv2d and the Dense of {first.where}. "
        "Give one of them another name=, or call one layer twice to share its parameters.",
    )


def test_a_parameters_name_taken_by_a_layer() -> None:
    with pytest.raises(ShapeError, match=r"the name 'a\.bias' is taken twice"):
        trace(seq(nn.Flatten(name="a.bias"), nn.Dense(3, name="a")), 3)


@pytest.mark.parametrize(
    ("layers", "other"),
    [
        ((nn.Flatten(), nn.Dense(3, name="x")), "the input"),
        ((nn.Conv2d(2, 1, name="a"), nn.ReLU(name="a.weight"), nn.Flatten(), nn.Dense(3)), "a parameter"),
    ],
)
def test_a_layer_of_a_taken_name(layers: tuple[nn.Layer, ...], other: str) -> None:
    with pytest.raises(ShapeError, match=f"is taken twice: by this .*, and by {other}"):
        trace(seq(*layers), 3, 4, 4)


def test_values_of_two_models() -> None:
    kept: list[nn.Value] = []

    def keep(x: nn.Value) -> nn.Value:
        kept.append(x)
        return x

    trace(keep, 3)
    with pytest.raises(ShapeError, match=r"^test_nn_errors\.py:\d+: Add was called on a value of another"):
        trace(lambda x: x + kept[0], 3)
