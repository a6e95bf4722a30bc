"""Operators that pick elements by indices, or put them somewhere."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

Array = np.ndarray[Any, Any]
Indices = Tensor | Array | Sequence[int]

_REDUCTIONS = {"add": "sum", "mul": "prod", "max": "amax", "min": "amin"}


def gather(x: Tensor, indices: Indices, *, axis: int = 0) -> Tensor:
    places = torch.as_tensor(indices)
    axis %= x.ndim
    return x[(slice(None),) * axis + (places % x.shape[axis],)]


def gather_elements(x: Tensor, indices: Indices, *, axis: int = 0) -> Tensor:
    return x.gather(axis, torch.as_tensor(indices) % x.shape[axis])


def gather_nd(x: Tensor, indices: Indices, *, batch_dims: int = 0) -> Tensor:
    places = torch.as_tensor(indices)
    lead = places.ndim - 1
    batch = [
        torch.arange(x.shape[i]).reshape([-1] + [1] * (lead - 1 - i)).expand(places.shape[:-1])
        for i in range(batch_dims)
    ]
    return x[(*batch, *places.unbind(-1))]


def scatter_elements(
    x: Tensor, indices: Indices, updates: Tensor, *, axis: int = 0, reduction: str = "none"
) -> Tensor:
    places = torch.as_tensor(indices) % x.shape[axis]
    if reduction == "none":
        return x.scatter(axis, places, updates)
    return x.scatter_reduce(axis, places, updates, _REDUCTIONS[reduction])


def scatter_nd(x: Tensor, indices: Indices, updates: Tensor, *, reduction: str = "none") -> Tensor:
    """As scatter_elements over the flat tensor."""
    places = torch.as_tensor(indices)
    numbers = torch.arange(x.numel()).reshape(x.shape)[tuple(places.unbind(-1))]
    flat = scatter_elements(x.flatten(), numbers.flatten(), updates.flatten(), reduction=reduction)
    return flat.reshape(x.shape)


def compress(x: Tensor, condition: Tensor | Sequence[bool], *, axis: int | None = None) -> Tensor:
    places = torch.as_tensor(condition).nonzero().flatten()
    return x.flatten()[places] if axis is None else x.index_select(axis, places)


def top_k(x: Tensor, k: Sequence[int], *, axis: int = -1, largest: int = 1) -> Tensor:
    return x.topk(k[0], axis, bool(largest)).values


def reverse_sequence(x: Tensor, lengths: Indices, *, batch_axis: int = 1, time_axis: int = 0) -> Tensor:
    """Each example's first `length` places from the last to the first; the others stay."""
    examples = []
    for example, length in zip(x.movedim((batch_axis, time_axis), (0, 1)), lengths, strict=True):
        examples.append(torch.cat([example[: int(length)].flip(0), example[int(length) :]]))
    return torch.stack(examples).movedim((0, 1), (batch_axis, time_axis))


def one_hot(indices: Tensor, depth: int, values: Tensor, *, axis: int = -1) -> Tensor:
    hot = torch.nn.functional.one_hot(indices % depth, depth).movedim(-1, axis)
    return values[0] + hot * (values[1] - values[0])


FUNCTIONS: dict[str, Callable[..., Tensor]] = {
    "Gather": gather,
    "GatherElements": gather_elements,
    "GatherND": gather_nd,
    "ScatterElements": scatter_elements,
    "ScatterND": scatter_nd,
    "Compress": compress,
    "TopK": top_k,
    "ReverseSequence": reverse_sequence,
    "OneHot": one_hot,
}
