"""The networks as data, which each peer's worker turns into that framework's own layers.

Nothing here needs more than Python: workers import it in environments without cnnc. Names of layers and the
layouts of their parameters are cnnc's, so that one file of initial values serves everyone::

    conv1.weight    [outputs, inputs / groups, kernel, kernel]
    bn1.weight      [channels], likewise bn1.bias, bn1.running_mean and bn1.running_var
    dense1.weight   [inputs, outputs], where inputs count flattened images as [C, H, W]
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import count


@dataclass(frozen=True)
class Conv:
    """A convolution with square kernels and `padding` zeros on every side."""

    inputs: int
    outputs: int
    kernel: int
    stride: int = 1
    padding: int = 0
    groups: int = 1
    bias: bool = False
    name: str = ""


@dataclass(frozen=True)
class BatchNorm:
    """Batch normalisation, the running statistics moving by a tenth: momentum 0.9, epsilon 1e-5."""

    channels: int
    name: str = ""


@dataclass(frozen=True)
class Dense:
    """A fully connected layer with bias."""

    inputs: int
    outputs: int
    name: str = ""


@dataclass(frozen=True)
class MaxPool:
    kernel: int
    stride: int
    padding: int = 0


@dataclass(frozen=True)
class ReLU: ...


@dataclass(frozen=True)
class GlobalAvgPool: ...


@dataclass(frozen=True)
class Flatten: ...


@dataclass(frozen=True)
class Residual:
    """`body` and `shortcut` (empty: the input itself) side by side, added."""

    body: Layers
    shortcut: Layers = ()


Layer = Conv | BatchNorm | Dense | MaxPool | ReLU | GlobalAvgPool | Flatten | Residual
Layers = tuple[Layer, ...]


@dataclass(frozen=True)
class Adam:
    """Kingma and Ba, 2015."""

    rate: float = 1e-3
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8


@dataclass(frozen=True)
class Momentum:
    """v ← momentum · v + g; p ← p - rate · v."""

    rate: float = 1e-2
    momentum: float = 0.9


@dataclass(frozen=True)
class Architecture:
    """Layers from images `image` [C, H, W] to the logits of `classes`, and what trains them."""

    image: tuple[int, int, int]
    classes: int
    layers: Layers
    optimizer: Adam | Momentum


def with_parameters(layers: Layers) -> Iterator[Conv | BatchNorm | Dense]:
    """The layers that have parameters, in the order in which they are named."""
    for layer in layers:
        if isinstance(layer, Residual):
            yield from with_parameters(layer.body + layer.shortcut)
        elif isinstance(layer, Conv | BatchNorm | Dense):
            yield layer


def _named(*layers: Layer) -> Layers:
    """The same layers, named by kind and order as cnnc names them: conv1, bn1, conv2, …"""
    counts = {Conv: count(1), BatchNorm: count(1), Dense: count(1)}
    kinds = {Conv: "conv", BatchNorm: "bn", Dense: "dense"}

    def name(layers: Layers) -> Layers:
        return tuple(
            replace(layer, body=name(layer.body), shortcut=name(layer.shortcut))
            if isinstance(layer, Residual)
            else replace(layer, name=f"{kinds[type(layer)]}{next(counts[type(layer)])}")
            if isinstance(layer, Conv | BatchNorm | Dense)
            else layer
            for layer in layers
        )

    return name(layers)


def _normalised(inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> Layers:
    """A convolution that keeps the size (or divides it by the stride), and batch normalisation."""
    return Conv(inputs, outputs, kernel, stride, kernel // 2, groups), BatchNorm(outputs)


def _mission() -> Layers:
    return _named(
        Conv(1, 32, 3, bias=True), ReLU(), MaxPool(2, 2), Flatten(), Dense(32 * 13 * 13, 10)
    )  # fmt: skip


def _vgg() -> Layers:
    layers: Layers = ()
    inputs = 3
    for outputs in (32, 64, 128):
        for channels in (inputs, outputs):
            layers += (Conv(channels, outputs, 3, padding=1, bias=True), ReLU())
        layers += (MaxPool(2, 2),)
        inputs = outputs
    return _named(*layers, Flatten(), Dense(128 * 4 * 4, 10))


def _resnet20() -> Layers:
    layers: Layers = (*_normalised(3, 16, 3), ReLU())
    inputs = 16
    for outputs in (16, 32, 64):
        for _ in range(3):
            stride = outputs // inputs
            body = (*_normalised(inputs, outputs, 3, stride), ReLU(), *_normalised(outputs, outputs, 3))
            shortcut = _normalised(inputs, outputs, 1, stride) if stride > 1 else ()
            layers += (Residual(body, shortcut), ReLU())
            inputs = outputs
    return _named(*layers, GlobalAvgPool(), Dense(64, 10))


def _mobile() -> Layers:
    layers: Layers = (*_normalised(3, 32, 3, stride=2), ReLU())
    inputs = 32
    for outputs, stride in ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1)):
        layers += (*_normalised(inputs, inputs, 3, stride, groups=inputs), ReLU())
        layers += (*_normalised(inputs, outputs, 1), ReLU())
        inputs = outputs
    return _named(*layers, GlobalAvgPool(), Dense(256, 10))


def _resnet50() -> Layers:
    """He et al., 2015, with the stride of a block in its 3×3 convolution, as in PyTorch's torchvision."""
    layers: Layers = (*_normalised(3, 64, 7, stride=2), ReLU(), MaxPool(3, 2, 1))
    inputs = 64
    for stage, blocks in enumerate((3, 4, 6, 3)):
        width = 64 * 2**stage
        for block in range(blocks):
            stride = 2 if stage > 0 and block == 0 else 1
            body = (
                *(*_normalised(inputs, width, 1), ReLU()),
                *(*_normalised(width, width, 3, stride), ReLU()),
                *_normalised(width, 4 * width, 1),
            )
            shortcut = _normalised(inputs, 4 * width, 1, stride) if block == 0 else ()
            layers += (Residual(body, shortcut), ReLU())
            inputs = 4 * width
    return _named(*layers, GlobalAvgPool(), Dense(2048, 1000))


ARCHITECTURES = {
    "mission": Architecture((1, 28, 28), 10, _mission(), Adam()),
    "vgg": Architecture((3, 32, 32), 10, _vgg(), Adam()),
    "resnet20": Architecture((3, 32, 32), 10, _resnet20(), Momentum()),
    "mobile": Architecture((3, 64, 64), 10, _mobile(), Momentum()),
    # Its gradient is so large at first that at a usual rate rounding decides where the first steps lead.
    "resnet50": Architecture((3, 224, 224), 1000, _resnet50(), Momentum(rate=1e-6)),
}
