"""Convolutions and pools."""

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
    strides, dilations, pairs, _ = _windows(x, **{"kernel_shape": w.shape[2:], **window})
    return function(_pad(x, pairs), w, b, strides, 0, dilations, group)


def conv_transpose(
    x: Tensor,
    w: Tensor,
    b: Tensor | None = None,
    *,
    group: int = 1,
    strides: Sequence[int] = (),
    dilations: Sequence[int] = (),
    pads: Sequence[int] = (),
    auto_pad: str = "NOTSET",
    output_padding: Sequence[int] = (),
    output_shape: Sequence[int] = (),
    kernel_shape: Sequence[int] = (),
) -> Tensor:
    """Without pads, then cut; bias on what is left."""
    rank = w.ndim - 2
    function = [F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d][rank - 1]
    strides, dilations = list(strides) or [1] * rank, list(dilations) or [1] * rank
    full = _pad(
        function(x, w, None, strides, 0, 0, group, dilations), [(0, more) for more in output_padding or [0]]
    )
    if auto_pad.startswith("SAME") and not output_shape:
        output_shape = [min(n * s, f) for n, s, f in zip(x.shape[2:], strides, full.shape[2:], strict=True)]
    if output_shape:
        totals = [f - n for f, n in zip(full.shape[2:], output_shape, strict=True)]
        small, large = [int(total / 2) for total in totals], [total - int(total / 2) for total in totals]
        pads = small + large if auto_pad == "SAME_UPPER" else large + small
        pads = [0] * rank + totals if min(totals) < 0 else pads
    cut = [(-pads[i], -pads[i + rank]) for i in range(rank)] if pads else [(0, 0)]
    y = _pad(full, cut)
    return y if b is None else y + b.reshape(-1, *[1] * rank)


def max_pool(x: Tensor, *, storage_order: int = 0, **window: Any) -> Tensor:
    """storage_order concerns the indices alone."""
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


def lp_pool(x: Tensor, *, p: int = 2, **window: Any) -> Tensor:
    """The p-th root of a convolution of |x|ᵖ with ones."""
    ones = torch.ones(x.shape[1], 1, *window["kernel_shape"], dtype=x.dtype)
    strides, dilations, pairs, beyond = _windows(x, **window)
    pads = [begin for begin, _ in pairs] + [end + more for (_, end), more in zip(pairs, beyond, strict=True)]
    powers = conv(x.abs() ** p, ones, group=x.shape[1], strides=strides, dilations=dilations, pads=pads)
    return powers ** (1 / p)


def over_space(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    return lambda x, **attributes: function(x, dim=list(range(2, x.ndim)), keepdim=True, **attributes)


FUNCTIONS: dict[str, Callable[..., Tensor]] = {
    "Conv": conv,
    "ConvTranspose": conv_transpose,
    "MaxPool": max_pool,
    "AveragePool": average_pool,
    "LpPool": lp_pool,
    "GlobalAveragePool": over_space(torch.mean),
    "GlobalMaxPool": over_space(torch.amax),
    "GlobalLpPool": over_space(lambda x, dim, keepdim, p=2: torch.linalg.vector_norm(x, p, dim, keepdim)),
}
