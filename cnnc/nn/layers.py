"""Layers with parameters, and the plain ones between them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from cnnc.checks import real
from cnnc.nn.activations import activate, check_activation
from cnnc.nn.initializers import Initializer, constant, initializer
from cnnc.nn.layer import Layer
from cnnc.nn.trace import Value, shown
from cnnc.nn.window import Padding, Size, Window


@dataclass(frozen=True, eq=False)
class Conv2d(Layer):
    """2-D convolution, [N, C, H, W] → [N, channels, H', W'].

    Parameters ``weight`` [channels, C / groups, kernel height, kernel width] and, with `bias`, ``bias``
    [channels]. `padding` is ``"valid"`` (none), ``"same"`` (H' = ceil(H / stride); an odd zero goes to the
    bottom and the right, as in TensorFlow), or the zeros on each side. `activation` names one of
    `ACTIVATIONS`. Raises ShapeError where sizes don't fit, GraphFileError for another field out of range.
    """

    kind: ClassVar[str] = "conv"
    channels: int
    kernel_size: Size
    stride: Size = 1
    padding: Padding = "valid"
    dilation: Size = 1
    groups: int = 1
    bias: bool = True
    activation: str | None = None
    weight_init: str | Initializer = "glorot_uniform"
    bias_init: str | Initializer = "zeros"

    def check(self) -> None:
        """Sizes are positive integers, `groups` divides `channels`, names are known."""
        self.size("channels", self.channels)
        self.size("groups", self.groups)
        if self.channels % self.groups:
            raise self.error(
                f"{self.groups} groups don't divide its {self.channels} channels.",
                "Choose channels that are a multiple of groups.",
            )
        self._window()
        check_activation(self, self.activation)
        initializer("Conv2d", "weight_init", self.weight_init)
        initializer("Conv2d", "bias_init", self.bias_init)

    def __call__(self, x: Value) -> Value:
        """Convolve images [N, C, H, W]."""
        call = self.call(x)
        channels, height, width = call.image(x)
        if channels % self.groups:
            raise call.error(
                f"its {self.groups} groups don't divide the {channels} channels of its input "
                f"{shown(x.shape)}.",
                f"Choose groups that divide {channels}.",
            )
        window = self._window()
        dims = (self.channels, channels // self.groups, *window.kernel)
        area = window.kernel[0] * window.kernel[1]
        fans = area * dims[1], area * self.channels
        weight = initializer("Conv2d", "weight_init", self.weight_init)(*fans)
        bias = initializer("Conv2d", "bias_init", self.bias_init)(*fans)
        y = call.op(
            "Conv",
            x,
            call.parameter("weight", dims, "weight", weight),
            call.parameter("bias", (self.channels,), "bias", bias) if self.bias else None,
            **window.attributes(call, height, width),
            dilations=window.dilation,
            group=self.groups,
        )
        return activate(call, y, self.activation)

    def _window(self) -> Window:
        return Window.of(self, self.kernel_size, self.stride, self.padding, self.dilation)


@dataclass(frozen=True, eq=False)
class Dense(Layer):
    """Fully connected layer, [N, features] → [N, units]: x · weight + bias.

    Parameters ``weight`` [features, units], so that no pass of a training step needs a transposed copy
    (Keras's layout, the transpose of PyTorch's), and, with `bias`, ``bias`` [units]. Raises ShapeError where
    sizes don't fit, GraphFileError for another field out of range.
    """

    kind: ClassVar[str] = "dense"
    units: int
    bias: bool = True
    activation: str | None = None
    weight_init: str | Initializer = "glorot_uniform"
    bias_init: str | Initializer = "zeros"

    def check(self) -> None:
        """Units are a positive integer, names are known."""
        self.size("units", self.units)
        check_activation(self, self.activation)
        initializer("Dense", "weight_init", self.weight_init)
        initializer("Dense", "bias_init", self.bias_init)

    def __call__(self, x: Value) -> Value:
        """Multiply vectors [N, features]."""
        call = self.call(x)
        features = x.shape[-1]
        if len(x.shape) != 2 or not isinstance(features, int):
            raise call.error(
                f"it takes vectors [N, features], but its input is {shown(x.shape)}.",
                "Put nn.Flatten() or nn.GlobalAvgPool2d() before it.",
            )
        weight = initializer("Dense", "weight_init", self.weight_init)(features, self.units)
        bias = initializer("Dense", "bias_init", self.bias_init)(features, self.units)
        y = call.op(
            "Gemm",
            x,
            call.parameter("weight", (features, self.units), "weight", weight),
            call.parameter("bias", (self.units,), "bias", bias) if self.bias else None,
        )
        return activate(call, y, self.activation)


@dataclass(frozen=True, eq=False)
class BatchNorm2d(Layer):
    """Batch normalisation of each channel of [N, C, H, W]; Ioffe and Szegedy, 2015.

    Parameters ``weight`` (the scale), ``bias``, and the statistics ``running_mean`` and ``running_var``, all
    [C]. In training the batch's own statistics normalise, and the running ones move to
    running · momentum + batch · (1 - momentum), with the population variance, as in ONNX and Keras (PyTorch's
    momentum is 1 minus this one). Raises ShapeError where sizes don't fit, GraphFileError for another field
    out of range.
    """

    kind: ClassVar[str] = "bn"
    momentum: float = 0.9
    epsilon: float = 1e-5

    def check(self) -> None:
        """Momentum in [0, 1), epsilon above 0."""
        real("BatchNorm2d", "momentum", self.momentum, below=1.0)
        real("BatchNorm2d", "epsilon", self.epsilon, positive=True)

    def __call__(self, x: Value) -> Value:
        """Normalise images [N, C, H, W]."""
        call = self.call(x)
        channels, _, _ = call.image(x)
        zeros, ones = constant(0.0)(1, 1), constant(1.0)(1, 1)
        return call.op(
            "BatchNormalization",
            x,
            call.parameter("weight", (channels,), "normalization", ones),
            call.parameter("bias", (channels,), "normalization", zeros),
            call.parameter("running_mean", (channels,), "statistic", zeros),
            call.parameter("running_var", (channels,), "statistic", ones),
            epsilon=self.epsilon,
            momentum=self.momentum,
        )


@dataclass(frozen=True, eq=False)
class Dropout(Layer):
    """In training, zero each element with probability `rate` and divide the others by 1 - rate.

    In evaluation and in the exported model it does nothing. Keeps the shape; Srivastava et al., 2014. Raises
    GraphFileError for a rate that is not in [0, 1).
    """

    kind: ClassVar[str] = "dropout"
    rate: float = 0.5

    def check(self) -> None:
        """Rate in [0, 1)."""
        real("Dropout", "rate", self.rate, below=1.0)

    def __call__(self, x: Value) -> Value:
        """Drop elements of a value of any shape."""
        call = self.call(x)
        return call.op("Dropout", x, np.asarray(self.rate, call.trace.dtype.numpy()))


@dataclass(frozen=True, eq=False)
class Flatten(Layer):
    """All dimensions but the batch in one: [N, C, H, W] → [N, C · H · W]."""

    kind: ClassVar[str] = "flatten"

    def __call__(self, x: Value) -> Value:
        """Flatten a value of any rank."""
        return self.call(x).op("Flatten", x, axis=1)
