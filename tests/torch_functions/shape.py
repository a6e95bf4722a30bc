"""Operators that move elements."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import chain
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

Array = np.ndarray[Any, Any]


def reshape(x: Tensor, shape: Sequence[int], *, allowzero: int = 0) -> Tensor:
    assert not (allowzero and 0 in shape)
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
    x: Tensor,
    starts: Sequence[int] | Tensor,
    ends: Sequence[int],
    axes: Sequence[int] = (),
    steps: Sequence[int] = (),
) -> Tensor:
    starts = torch.as_tensor(starts).tolist()
    for axis, start, end, step in zip(
        axes or range(len(starts)), starts, ends, steps or [1] * len(starts), strict=True
    ):
        taken = range(x.shape[axis])[start:end:step]
        x = x.index_select(axis, torch.tensor(taken))
    return x


def pad(
    x: Tensor,
    pads: Sequence[int],
    value: Tensor | float | None = None,
    axes: Sequence[int] | None = None,
    *,
    mode: Literal["constant", "edge", "reflect", "wrap"] = "constant",
) -> Tensor:
    chosen = list(range(x.ndim)) if axes is None else [axis % x.ndim for axis in axes]
    pairs = [(0, 0)] * x.ndim
    for axis, begin, end in zip(chosen, pads[: len(chosen)], pads[len(chosen) :], strict=True):
        pairs[axis] = (begin, end)
    if mode == "constant":
        flat = list(chain.from_iterable(reversed(pairs)))
        return F.pad(x, flat) + F.pad(torch.zeros_like(x), flat, value=1.0) * (
            0.0 if value is None else value
        )
    for axis, pair in enumerate(pairs):  # torch mirrors some ranks only
        places = np.pad(np.arange(x.shape[axis]), pair, mode=mode)
        x = x.index_select(axis, torch.tensor(places))
    return x


def split(x: Tensor, sizes: Sequence[int] | None = None, *, axis: int = 0, num_outputs: int = 0) -> Any:
    size = x.shape[axis]
    return x.split(list(sizes) if sizes is not None else -(-size // num_outputs), axis)


def depth_to_space(x: Tensor, *, blocksize: int, mode: str = "DCR") -> Tensor:
    if mode == "CRD":
        return F.pixel_shuffle(x, blocksize)
    n, c, h, w = x.shape
    blocks = x.reshape(n, blocksize**2, c // blocksize**2, h, w).transpose(1, 2)
    return F.pixel_shuffle(blocks.reshape(x.shape), blocksize)


def space_to_depth(x: Tensor, *, blocksize: int) -> Tensor:
    n, c, h, w = x.shape
    blocks = F.pixel_unshuffle(x, blocksize).reshape(n, c, blocksize**2, h // blocksize, w // blocksize)
    return blocks.transpose(1, 2).reshape(n, -1, h // blocksize, w // blocksize)


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "Expand": lambda x, shape: x + torch.zeros(shape, dtype=x.dtype),
    "Reshape": reshape,
    "Flatten": flatten,
    "Squeeze": squeeze,
    "Unsqueeze": unsqueeze,
    "Transpose": lambda x, perm=None: x.permute(perm or list(range(x.ndim))[::-1]),
    "Concat": lambda *xs, axis: torch.cat(xs, axis),
    "Slice": slice_,
    "Pad": pad,
    "Split": split,
    "Tile": lambda x, repeats: x.tile(tuple(repeats)),
    "DepthToSpace": depth_to_space,
    "SpaceToDepth": space_to_depth,
    "Trilu": lambda x, k=0, upper=1: (torch.triu if upper else torch.tril)(x, int(k)),
}
