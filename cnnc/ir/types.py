"""Tensor types: an element type and dimensions that are sizes or symbols."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import onnx
import onnx_ir as ir

Dim = int | str
"""A dimension: a size, or a symbol such as ``"N"`` (equal symbols are equal sizes)."""


@dataclass(frozen=True)
class TensorType:
    """Element type and dimensions of a tensor."""

    dtype: ir.DataType
    dims: tuple[Dim, ...]

    def __str__(self) -> str:
        return f"{self.dtype.name.lower()}[{', '.join(map(str, self.dims))}]"

    @property
    def rank(self) -> int:
        """Number of dimensions."""
        return len(self.dims)

    @property
    def sizes(self) -> tuple[int, ...]:
        """The dimensions of a static shape."""
        return tuple(int(d) for d in self.dims)

    def to_proto(self) -> onnx.TypeProto:
        """The same type in ONNX's form."""
        return onnx.helper.make_tensor_type_proto(int(self.dtype), list(self.dims))


def type_of(value: ir.Value) -> TensorType:
    """The type of a value whose type and rank are known (every value that a `Builder` made)."""
    if value.dtype is None or value.shape is None:
        raise ValueError(f"value '{value.name}' has no known type or rank")
    return TensorType(value.dtype, dims_of(value))


def dims_of(value: ir.Value) -> tuple[Dim, ...]:
    """The dimensions of a value of known rank."""
    if value.shape is None:
        raise ValueError(f"value '{value.name}' has no known rank")
    return tuple(d if isinstance(d, int) else str(d.value) for d in value.shape)


def sizes_of(value: ir.Value) -> tuple[int, ...]:
    """The dimensions of a value whose shape is static."""
    return tuple(int(d) for d in dims_of(value))


def is_static(dims: Sequence[Dim]) -> bool:
    """Whether all dimensions are sizes."""
    return all(isinstance(d, int) for d in dims)


def agree(one: Sequence[Dim], other: Sequence[Dim]) -> bool:
    """Whether two shapes may be the same: of one rank, and equal where both dimensions are sizes."""
    return len(one) == len(other) and all(
        a == b or isinstance(a, str) or isinstance(b, str) for a, b in zip(one, other, strict=True)
    )
