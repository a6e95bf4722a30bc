"""A row of the table, and how its inputs are drawn."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx_ir as ir

from cnnc.ir import Builder, Ops

Array = np.ndarray[Any, Any]
Attributes = dict[str, Any]
Draw = Callable[[np.random.Generator, Sequence[int]], Array]

SIZES = {"N": 3, "H": 5, "W": 4, "M": 2}


@dataclass(frozen=True)
class Input:
    dims: tuple[int | str, ...]
    draw: Draw
    differentiated: bool = True
    dtype: ir.DataType | None = None
    """None: the element type of the run."""

    def __str__(self) -> str:
        return " ".join(map(str, self.dims)) or "scalar"


Operand = Input | Sequence[int] | Array | int | float | None


@dataclass(frozen=True)
class Case:
    """`emit` appends the row's nodes; the first `projected` outputs make the loss."""

    op: str
    operands: tuple[Operand, ...]
    attributes: Attributes = field(default_factory=dict)
    outputs: int = 1
    projected: int = 1
    graph: Callable[..., Any] | None = None

    def emit(self, builder: Builder, *values: Any) -> tuple[ir.Value, ...]:
        if self.graph is not None:
            result = self.graph(Ops(builder), *values)
        else:
            result = builder.op(self.op, *values, outputs=self.outputs, **self.attributes)
        return result if isinstance(result, tuple) else (result,)

    @property
    def inputs(self) -> list[Input]:
        return [o for o in self.operands if isinstance(o, Input)]

    @property
    def batches(self) -> list[dict[str, int]]:
        """Sizes of the symbols, run by run."""
        has_batch = any("N" in i.dims for i in self.inputs)
        return [SIZES, {**SIZES, "N": 1}] if has_batch else [SIZES]

    def __str__(self) -> str:
        operands = ["-" if o is None else str(o) for o in self.operands]
        attributes = [f"{key}={value}" for key, value in self.attributes.items()]
        return f"{self.op}({', '.join(operands + attributes)})" + (" graph" if self.graph else "")


def normal(dims: str) -> Input:
    return Input(_dims(dims), lambda rng, shape: rng.standard_normal(shape))


def positive(dims: str) -> Input:
    return Input(_dims(dims), lambda rng, shape: rng.uniform(0.5, 2.0, shape))


def off_zero(dims: str) -> Input:
    """Away from zero, where the absolute value, ReLU and 1/x have a kink or a pole."""
    return Input(_dims(dims), lambda rng, shape: rng.uniform(0.25, 2.0, shape) * rng.choice([-1, 1], shape))


def inside(dims: str, low: float, high: float) -> Input:
    """Between two numbers that bound where the operator is smooth."""
    return Input(_dims(dims), lambda rng, shape: rng.uniform(low, high, shape))


def off_jumps(dims: str) -> Input:
    """Away from the integers and from the halves between them."""
    return Input(_dims(dims), lambda rng, shape: rng.integers(-3, 3, shape) + rng.choice([0.25, 0.75], shape))


def with_zeros(dims: str) -> Input:
    """About half of the elements are exactly zero: for operators that are smooth there."""
    return Input(
        _dims(dims), lambda rng, shape: rng.uniform(0.5, 2.0, shape) * rng.choice([-1, 0, 0, 1], shape)
    )


def spaced(dims: str, offset: float = 0.0) -> Input:
    """No two elements closer than 0.1, so that no small step changes which is the largest.

    With other offsets, no two elements of several inputs are equal.
    """
    return Input(
        _dims(dims),
        lambda rng, shape: 0.1 * (rng.permutation(int(np.prod(shape))) - 9.5).reshape(shape) + offset,
    )


def fixed(dims: str, low: float = -1.0, high: float = 1.0) -> Input:
    return Input(_dims(dims), lambda rng, shape: rng.uniform(low, high, shape), differentiated=False)


def labels(dims: str, classes: int) -> Input:
    return Input(
        _dims(dims),
        lambda rng, shape: rng.integers(0, classes, shape),
        differentiated=False,
        dtype=ir.DataType.INT64,
    )


def indices(dims: str, size: int) -> Input:
    """Places on an axis of that size, counted from either end."""
    return Input(
        _dims(dims),
        lambda rng, shape: rng.integers(-size, size, shape),
        differentiated=False,
        dtype=ir.DataType.INT64,
    )


def conditions(dims: str) -> Input:
    """Truth values."""
    return Input(
        _dims(dims), lambda rng, shape: rng.random(shape) < 0.5, differentiated=False, dtype=ir.DataType.BOOL
    )


def case(op: str, *operands: Operand | str, outputs: int = 1, projected: int = 1, **attributes: Any) -> Case:
    """A row that is one node."""
    return Case(op, tuple(map(_operand, operands)), attributes, outputs, projected)


def having(**attributes: Any) -> Attributes:
    """Attributes of rows that differ in them."""
    return attributes


def graph(op: str, build: Callable[..., Any], *operands: Operand | str) -> Case:
    """A row that is a small graph around `op`: ``build(op, *values)`` returns its output."""
    return Case(op, tuple(map(_operand, operands)), graph=build)


def _operand(operand: Operand | str) -> Operand:
    return normal(operand) if isinstance(operand, str) else operand


def _dims(text: str) -> tuple[int | str, ...]:
    return tuple(int(d) if d.isdigit() else d for d in text.split())
