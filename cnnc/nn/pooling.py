"""Pooling layers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from cnnc.nn.layer import Layer
from cnnc.nn.trace import Value
from cnnc.nn.window import Padding, Size, Window


@dataclass(frozen=True, eq=False)
class _Pool(Layer):
    kind: ClassVar[str] = "pool"
    kernel_size: Size
    stride: Size | None = None
    padding: Padding = "valid"

    def check(self) -> None:
        """Sizes are positive integers, and no window lies wholly in the padding."""
        window = self._window()
        if isinstance(window.padding, tuple) and any(
            zeros >= kernel for zeros, kernel in zip(window.padding, window.kernel, strict=True)
        ):
            raise self.error(
                f"a padding of {self.padding} gives windows of {self.kernel_size} that see no pixel.",
                "Use a padding smaller than the kernel.",
            )

    def _window(self) -> Window:
        stride = self.kernel_size if self.stride is None else self.stride
        return Window.of(self, self.kernel_size, stride, self.padding)

    def _pool(self, x: Value, op_type: str, **attributes: Any) -> Value:
        call = self.call(x)
        _, height, width = call.image(x)
        return call.op(op_type, x, **self._window().attributes(call, height, width), **attributes)


@dataclass(frozen=True, eq=False)
class MaxPool2d(_Pool):
    """The largest of each window, [N, C, H, W] → [N, C, H', W'].

    `stride` is the kernel's size where it is not given; `padding` as in `Conv2d`, and never wins.
    Raises ShapeError.
    """

    def __call__(self, x: Value) -> Value:
        """Pool images [N, C, H, W]."""
        return self._pool(x, "MaxPool")


@dataclass(frozen=True, eq=False)
class AvgPool2d(_Pool):
    """The mean of each window, [N, C, H, W] → [N, C, H', W'].

    `stride` is the kernel's size where it is not given; `padding` as in `Conv2d`. Padding counts in the mean
    only with `count_include_pad` (so in PyTorch's default; not so in Keras's and ONNX's). Raises ShapeError.
    """

    count_include_pad: bool = False

    def __call__(self, x: Value) -> Value:
        """Pool images [N, C, H, W]."""
        return self._pool(x, "AveragePool", count_include_pad=int(self.count_include_pad))


@dataclass(frozen=True, eq=False)
class GlobalAvgPool2d(Layer):
    """The mean of each channel, [N, C, H, W] → [N, C]: ready for `Dense`. Raises ShapeError."""

    kind: ClassVar[str] = "pool"

    def __call__(self, x: Value) -> Value:
        """Pool images [N, C, H, W]."""
        call = self.call(x)
        call.image(x)
        return call.op("Flatten", call.op("GlobalAveragePool", x), name="flatten", axis=1)
