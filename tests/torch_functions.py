"""The operators of the table as PyTorch writes them: an oracle that shares nothing with ours.

``FUNCTIONS[op](*inputs, **attributes)`` takes and returns tensors; attributes are ONNX's. Only for tests
marked ``oracle``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import chain
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 -- as everybody writes it
from torch import Tensor


def _windows(
    x: Tensor,
    kernel_shape: Sequence[int],
    strides: Sequence[int] = (),
    pads: Sequence[int] = (),
    dilations: Sequence[int] = (),
    auto_pad: str = "NOTSET",
    ceil_mode: int = 0,
) -> tuple[list[int], list[int], list[tuple[int, int]], list[int]]:
    """Strides, dilations, pads of each axis, and how far beyond the end pad ceil_mode lets windows reach."""
    rank = len(kernel_shape)
    strides, dilations = list(strides) or [1] * rank, list(dilations) or [1] * rank
    pairs = list(zip(pads[:rank], pads[rank:], strict=True)) if pads else [(0, 0)] * rank
    beyond = [0] * rank
    for i, (size, k, s, d) in enumerate(zip(x.shape[2:], kernel_shape, strides, dilations, strict=True)):
        span = d * (k - 1) + 1
        if auto_pad in ("SAME_UPPER", "SAME_LOWER"):
            total = max(((size + s - 1) // s - 1) * s + span - size, 0)
            less, more = total // 2, (total + 1) // 2
            pairs[i] = (less, more) if auto_pad == "SAME_UPPER" else (more, less)
        if ceil_mode:
            padded = size + sum(pairs[i])
            rest = (padded - span) % s
            begins = padded - span - rest + s  # where one more window would begin
            if rest and begins < size + pairs[i][0]:
                beyond[i] = begins + span - padded
    return strides, dilations, pairs, beyond


def _pad(x: Tensor, pairs: Sequence[tuple[int, int]], value: float = 0.0) -> Tensor:
    return F.pad(x, list(chain.from_iterable(reversed(pairs))), value=value)


def conv(x: Tensor, w: Tensor, b: Tensor | None = None, *, group: int = 1, **window: Any) -> Tensor:
    function = [F.conv1d, F.conv2d, F.conv3d][w.ndim - 3]
    strides, dilations, pairs, _ = _windows(x, w.shape[2:], **window)
    return function(_pad(x, pairs), w, b, strides, 0, dilations, group)


def max_pool(x: Tensor, **window: Any) -> Tensor:
    function = [F.max_pool1d, F.max_pool2d, F.max_pool3d][x.ndim - 3]
    strides, dilations, pairs, beyond = _windows(x, **window)
    pairs = [(begin, end + more) for (begin, end), more in zip(pairs, beyond, strict=True)]
    return function(_pad(x, pairs, -torch.inf), window["kernel_shape"], strides, 0, dilations)


def average_pool(x: Tensor, *, count_include_pad: int = 0, **window: Any) -> Tensor:
    """The sum of a window over the sum of ones: pads are ones where they count."""
    function = [F.avg_pool1d, F.avg_pool2d, F.avg_pool3d][x.ndim - 3]
    strides, _, pairs, beyond = _windows(x, **window)
    rest = [(0, more) for more in beyond]

    def mean(x: Tensor, value: float) -> Tensor:
        return function(_pad(_pad(x, pairs, value), rest), window["kernel_shape"], strides)

    return mean(x, 0.0) / mean(torch.ones_like(x), float(count_include_pad))


def gemm(
    a: Tensor,
    b: Tensor,
    c: Tensor | float = 0.0,
    *,
    alpha: float = 1.0,
    beta: float = 1.0,
    transA: int = 0,  # noqa: N803 -- ONNX's name
    transB: int = 0,  # noqa: N803
) -> Tensor:
    return alpha * (a.T if transA else a) @ (b.T if transB else b) + beta * c


def reduction(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def reduce(
        x: Tensor, axes: Sequence[int] = (), *, keepdims: int = 1, noop_with_empty_axes: int = 0
    ) -> Tensor:
        if not axes and noop_with_empty_axes:
            return x
        return function(x, list(axes) or list(range(x.ndim)), keepdim=bool(keepdims))

    return reduce


def reshape(x: Tensor, shape: Sequence[int]) -> Tensor:
    return x.reshape([x.shape[i] if size == 0 else size for i, size in enumerate(shape)])


def flatten(x: Tensor, *, axis: int = 1) -> Tensor:
    rows = x.shape[:axis].numel()
    return x.reshape(rows, x.numel() // rows)


def squeeze(x: Tensor, axes: Sequence[int] | None = None) -> Tensor:
    return x.squeeze() if axes is None else x.squeeze(tuple(axes))


def unsqueeze(x: Tensor, axes: Sequence[int]) -> Tensor:
    rank = x.ndim + len(axes)
    for axis in sorted(axis % rank for axis in axes):
        x = x.unsqueeze(axis)
    return x


def slice_(
    x: Tensor, starts: Sequence[int], ends: Sequence[int], axes: Sequence[int] = (), steps: Sequence[int] = ()
) -> Tensor:
    for axis, start, end in zip(axes or range(len(starts)), starts, ends, strict=True):
        index: list[Any] = [slice(None)] * x.ndim
        index[axis] = slice(start, end)
        x = x[tuple(index)]
    return x


def batch_normalization(
    x: Tensor, scale: Tensor, bias: Tensor, mean: Tensor, var: Tensor, *, epsilon: float = 1e-5
) -> Tensor:
    return F.batch_norm(x, mean, var, scale, bias, training=False, eps=epsilon)


def batch_normalization_training(
    x: Tensor, scale: Tensor, bias: Tensor, _mean: Tensor, _var: Tensor, *, epsilon: float, momentum: float
) -> Tensor:
    return F.batch_norm(x, None, None, scale, bias, training=True, eps=epsilon)


def softmax_cross_entropy(logits: Tensor, labels: Tensor, *, label_smoothing: float) -> Tensor:
    return F.cross_entropy(logits, labels, reduction="none", label_smoothing=label_smoothing)


FUNCTIONS: dict[str, Callable[..., Tensor]] = {
    "Identity": torch.clone,
    "Neg": torch.neg,
    "Exp": torch.exp,
    "Log": torch.log,
    "Sqrt": torch.sqrt,
    "Erf": torch.erf,
    "Relu": F.relu,
    "LeakyRelu": lambda x, alpha=0.01: F.leaky_relu(x, alpha),
    "Sigmoid": torch.sigmoid,
    "Tanh": torch.tanh,
    "Softplus": F.softplus,
    "Abs": torch.abs,
    "Softmax": lambda x, axis=-1: torch.softmax(x, axis),
    "LogSoftmax": lambda x, axis=-1: torch.log_softmax(x, axis),
    "Add": torch.add,
    "Sub": torch.sub,
    "Mul": torch.mul,
    "Div": torch.div,
    "Sum": lambda *xs: sum(xs[1:], xs[0]),
    "Expand": lambda x, shape: x + torch.zeros(shape, dtype=x.dtype),
    "Reshape": reshape,
    "Flatten": flatten,
    "Squeeze": squeeze,
    "Unsqueeze": unsqueeze,
    "Transpose": lambda x, perm=None: x.permute(perm or list(range(x.ndim))[::-1]),
    "Concat": lambda *xs, axis: torch.cat(xs, axis),
    "Slice": slice_,
    "ReduceSum": reduction(torch.sum),
    "ReduceMean": reduction(torch.mean),
    "Gemm": gemm,
    "MatMul": torch.matmul,
    "Conv": conv,
    "MaxPool": max_pool,
    "AveragePool": average_pool,
    "GlobalAveragePool": lambda x: x.mean(list(range(2, x.ndim)), keepdim=True),
    "BatchNormalization": batch_normalization,
    "BatchNormalizationTraining": batch_normalization_training,
    "SoftmaxCrossEntropy": softmax_cross_entropy,
}
