"""What every loss is made of."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
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
Share = tuple[ir.Value, ir.Value | None]
"""A target, and the share [N] that it has in each example's loss; None: all of it."""
Term = tuple[Mapping[str, ir.Value], ir.Value | None]
"""Targets by name, and the share that they have in each example's loss."""


class Loss(ABC):
    """The mean of a difference between the output and a target."""

    activation: ClassVar[Literal["softmax", "sigmoid", "identity"]]
    """What makes a prediction of the output: the loss includes it, the exported model applies it."""

    @abstractmethod
    def target(self, output: TensorType) -> TargetSpec:
        """The graph input that holds the targets of an output. Raises ShapeError where it can't have any."""

    @abstractmethod
    def elements(
        self, builder: Builder, output: ir.Value, target: ir.Value
    ) -> tuple[ir.Value, ir.Value | None]:
        """Emit the losses, [N] or [N, …], and what each counts in the mean: None where each counts 1.

        Otherwise a truth value for each, or a weight; losses are given as their weights make them.
        """

    def emit(self, builder: Builder, output: ir.Value, target: ir.Value) -> tuple[ir.Value, ir.Value]:
        """Emit the sum of the losses and the count that divides it, both scalars.

        The count is of int64, or where it is a sum of weights of the output's type.
        """
        losses, counted = self.elements(builder, output, target)
        return builder.op("ReduceSum", losses, keepdims=0), _count(builder, losses, counted)

    def emit_mixture(
        self, builder: Builder, output: ir.Value, targets: Sequence[Share]
    ) -> tuple[ir.Value, ir.Value]:
        """As `emit`, where the loss of an example is the sum of those for its targets times their shares.

        The shares of an example add up to 1. For two targets λ·l(a) + (1-λ)·l(b), as in Zhang et al., 2018.
        """
        if len(targets) == 1 and targets[0][1] is None:
            return self.emit(builder, output, targets[0][0])
        # One loss over the batch as often as there are targets: one node of it, and one of its gradient.
        batch = builder.unique("loss/examples")

        def stacked(*values: ir.Value) -> ir.Value:
            dims = (batch, *dims_of(values[0])[1:])
            stack: ir.Value = builder.op("Concat", *values, axis=0, dims=dims)
            return stack

        losses, counted = self.elements(
            builder, stacked(*[output] * len(targets)), stacked(*(target for target, _ in targets))
        )
        share = stacked(*(share for _, share in targets if share is not None))
        share = builder.reshape(share, (batch, *[1] * (len(dims_of(losses)) - 1)))
        total = builder.op("ReduceSum", builder.op("Mul", losses, share), keepdims=0)
        if counted is None:
            return total, builder.op("Div", builder.op("Size", losses), len(targets))
        weights = builder.op("Cast", counted, to=int(type_of(losses).dtype))
        return total, builder.op("ReduceSum", builder.op("Mul", weights, share), keepdims=0)

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


def _count(builder: Builder, losses: ir.Value, counted: ir.Value | None = None) -> ir.Value:
    """The number of all losses, or of those that count, or the sum of their weights."""
    if counted is None:
        number: ir.Value = builder.op("Size", losses)
        return number
    if counted.dtype == ir.DataType.BOOL:
        counted = builder.op("Cast", counted, to=int(ir.DataType.INT64))
    weights: ir.Value = builder.op("ReduceSum", counted, keepdims=0)
    return weights


def numbers(owner: str, field: str, values: Any) -> tuple[float, ...]:
    """A list of one number of at least 0 for each class or channel. Raises GraphFileError."""
    if not isinstance(values, Sequence | np.ndarray) or isinstance(values, str) or not len(values):
        raise GraphFileError(
            f"{owner}: {field} must be a list of numbers, not {values!r}.",
            where=user_line(),
            hint="Give one for each class.",
        )
    return tuple(real(owner, f"each of {field}", v) for v in values)


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
