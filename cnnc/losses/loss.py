"""What every loss is made of."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import onnx_ir as ir

from cnnc.bundle import TargetSpec
from cnnc.checks import real
from cnnc.describe import describe
from cnnc.errors import GraphFileError, ShapeError
from cnnc.ir import Builder, TensorType, dims_of, type_of
from cnnc.source import user_line

if TYPE_CHECKING:
    from cnnc.losses.weighted import Weighted


class Loss(ABC):
    """The mean of a difference between the output and a target."""

    activation: ClassVar[Literal["softmax", "sigmoid", "identity"]]
    """What makes a prediction of the output: the loss includes it, the exported model applies it."""

    @abstractmethod
    def target(self, output: TensorType) -> TargetSpec:
        """The graph input that holds the targets of an output. Raises ShapeError where it can't have any."""

    @abstractmethod
    def emit(self, builder: Builder, output: ir.Value, target: ir.Value) -> tuple[ir.Value, ir.Value]:
        """Emit the sum of the losses and the count that divides it, both scalars.

        The count is of int64, or where it is a sum of weights of the output's type.
        """

    @property
    def may_count_nothing(self) -> bool:
        """Whether a batch can have the count 0; its loss is then 0."""
        return False

    def mean(self, builder: Builder, total: ir.Value, count: ir.Value, name: str = "loss") -> ir.Value:
        """Emit the sum over the count, called `name`."""
        count = builder.op("CastLike", count, total)
        if self.may_count_nothing:
            count = builder.op("Max", count, 1e-30)  # below any sum of weights
        mean: ir.Value = builder.op("Div", total, count, name=name)
        return mean

    def activate(self, builder: Builder, output: ir.Value) -> ir.Value:
        """Emit what makes a prediction of the output: `activation`."""
        if self.activation == "softmax":
            output = builder.op("Softmax", output, axis=1)
        elif self.activation == "sigmoid":
            output = builder.op("Sigmoid", output)
        return output

    def __rmul__(self, weight: Any) -> Weighted:
        """``0.3 * loss``: one of several losses, with its weight in their sum."""
        from cnnc.losses.weighted import Weighted

        return Weighted(self, weight)

    __mul__ = __rmul__

    def describe(self) -> dict[str, Any]:
        """Name and fields, for the manifest."""
        return dict(describe(self))


def with_elements(loss: Loss, output: TensorType) -> tuple[int | str, ...]:
    """The output's shape, where an example has elements. Raises ShapeError."""
    if output.rank < 2:
        raise ShapeError(
            f"{type(loss).__name__} takes an output [N, …]; the network's output is {output}.",
            hint="End it with nn.Dense(1) for one value an example.",
        )
    return output.dims


def mean_of_elements(builder: Builder, values: ir.Value) -> ir.Value:
    """[N, …] → [N]."""
    mean: ir.Value = builder.op("ReduceMean", values, list(range(1, len(dims_of(values)))), keepdims=0)
    return mean


def total(builder: Builder, losses: ir.Value) -> tuple[ir.Value, ir.Value]:
    """The sum of all elements, and their number."""
    return builder.op("ReduceSum", losses, keepdims=0), builder.op("Size", losses)


def numbers(owner: str, field: str, values: Any) -> tuple[float, ...]:
    """A list of one number of at least 0 for each class or channel. Raises GraphFileError."""
    if not isinstance(values, Sequence | np.ndarray) or isinstance(values, str) or not len(values):
        raise GraphFileError(
            f"{owner}: {field} must be a list of numbers, not {values!r}.",
            where=user_line(),
            hint="Give one for each class.",
        )
    return tuple(
        real(owner, f"each of {field}", float(v) if isinstance(v, np.generic) else v) for v in values
    )


def by_channel(owner: str, field: str, values: Sequence[float], output: TensorType) -> None:
    """Raise ShapeError unless there is one of `values` for each channel (axis 1) of the output."""
    if len(values) != output.dims[1]:
        raise ShapeError(
            f"{owner}: {field} has {len(values)} numbers for an output {output}.",
            hint="Give one for each class, in the order of the labels.",
        )


def constant_by_channel(builder: Builder, values: Sequence[float], like: ir.Value) -> ir.Value:
    """[C] as a constant [C, 1, …] that broadcasts along axis 1 of `like`."""
    array = np.array(values).reshape(-1, *[1] * (len(dims_of(like)) - 2))
    return builder.constant(array, type_of(like).dtype)
