"""What every optimizer is made of."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any, ClassVar

import onnx_ir as ir

from cnnc.checks import real
from cnnc.describe import describe
from cnnc.errors import GraphFileError
from cnnc.ir import GRAD_OPS, Builder, Parameter
from cnnc.optim.group import Group, Own, assigned
from cnnc.schedules import Constant, Schedule
from cnnc.source import user_line

Update = tuple[ir.Value, tuple[ir.Value, ...]]
"""The next parameter and its next slots."""


@dataclass(frozen=True)
class Slot:
    """A tensor that an optimizer keeps for a parameter: its shape, and the number that fills it at first."""

    name: str
    shape: tuple[int, ...]
    value: float = 0.0


@dataclass(frozen=True)
class Optimizer(ABC):
    """What every optimizer has: a learning rate, weight decay, clipping, and groups that differ.

    `learning_rate` is a number above 0 or a schedule of it (see `cnnc.schedules`), in the parameter's units
    a step. `weight_decay` applies to weights alone, or with `decay_all` to biases and normalisation, too.
    `clip_norm` scales the gradients of a step down to this global norm, where theirs is larger (see `clip`).
    `groups` train otherwise than the rest. Raises GraphFileError for a field out of range.

    A class of its own adds the fields that its gradient op (see `cnnc.ir.update_ops`) takes as attributes,
    under their names, says which `update_op` that is, and what `slots` it keeps; `scalars` where the op needs
    more than the rate. `decoupled` tells whether weight decay is taken from the parameter itself, as AdamW
    does, or added to the gradient.
    """

    decoupled: ClassVar[bool] = False

    learning_rate: float | Schedule
    _: KW_ONLY
    weight_decay: float = 0.0
    decay_all: bool = False
    clip_norm: float | None = None
    groups: Sequence[Group] = ()

    def __post_init__(self) -> None:
        owner = type(self).__name__
        if not isinstance(self.learning_rate, Schedule):
            real(owner, "learning_rate", self.learning_rate, positive=True)
        real(owner, "weight_decay", self.weight_decay)
        if self.clip_norm is not None:
            real(owner, "clip_norm", self.clip_norm, positive=True)
        groups = self.groups
        if not isinstance(groups, tuple | list) or not all(isinstance(group, Group) for group in groups):
            raise GraphFileError(
                f"{owner}: groups must be a list of optim.Group, not {groups!r}.",
                where=user_line(),
                hint="Write groups=[optim.Group('conv1.*', learning_rate=1e-4)].",
            )
        object.__setattr__(self, "groups", tuple(groups))

    @property
    @abstractmethod
    def update_op(self) -> str:
        """The gradient op of one step of one parameter."""

    @abstractmethod
    def slots(self, shape: tuple[int, ...]) -> tuple[Slot, ...]:
        """What it keeps for a parameter of this shape."""

    @property
    def schedule(self) -> Schedule:
        """The learning rate as a schedule."""
        rate = self.learning_rate
        return rate if isinstance(rate, Schedule) else Constant(rate)

    def describe(self) -> dict[str, Any]:
        """Name and fields, for the manifest."""
        record = dict(describe(self))
        record["groups"] = [group.describe() for group in self.groups]
        return record if self.groups else {k: v for k, v in record.items() if k != "groups"}

    def own(self, parameters: Sequence[Parameter]) -> dict[str, Own]:
        """What `groups` say of each of the trained `parameters` that is in one. Raises GraphFileError."""
        return assigned(self.groups, parameters, self.schedule.base, self.decay_all)

    def clip(self, builder: Builder, gradients: Sequence[ir.Value]) -> list[ir.Value]:
        """Scale all gradients by min(1, clip_norm / (norm + 1e-6)), where norm is that of all together.

        So do PyTorch's ``clip_grad_norm_`` and Pascanu et al., 2013.
        """
        if self.clip_norm is None or not gradients:
            return list(gradients)
        squares = [
            builder.op("ReduceSum", builder.op("Mul", gradient, gradient), keepdims=0)
            for gradient in gradients
        ]
        total = builder.op("Sum", *squares)
        norm = builder.op("Add", builder.op("Sqrt", total), 1e-6)
        scale = builder.op("Min", builder.op("Div", self.clip_norm, norm), 1.0)
        return [builder.op("Mul", gradient, scale) for gradient in gradients]

    def scalars(self, builder: Builder, step: ir.Value, rate: ir.Value) -> tuple[ir.Value, ...]:
        """What `update` needs once a step, from the finished steps (int64) and the rate; here the rate."""
        return (rate,)

    def attributes(self, decay: bool) -> dict[str, Any]:
        """The op's attributes: the fields of their names. `decay` tells whether the parameter decays."""
        amount = float(self.weight_decay) if decay or self.decay_all else 0.0
        own: dict[str, Any] = {
            "weight_decay": 0.0 if self.decoupled else amount,
            "decoupled_decay": amount if self.decoupled else 0.0,
        }
        names = GRAD_OPS[self.update_op].attributes
        fields = {name: getattr(self, name) for name in names if hasattr(self, name)}
        return fields | {name: own[name] for name in names if name in own}

    def update(
        self,
        builder: Builder,
        parameter: ir.Value,
        gradient: ir.Value,
        slots: Sequence[ir.Value],
        scalars: Sequence[ir.Value],
        decay: bool,
    ) -> Update:
        """Emit the update of one parameter, whose slots are those of `slots`, in order.

        `decay` tells whether weight decay applies to its kind. Of the op's inputs the optional ones are last:
        slots that not every parameter has.
        """
        required = [name for name in GRAD_OPS[self.update_op].inputs if not name.endswith("?")]
        kept = len(required) - 2 - len(scalars)
        results = builder.op(
            self.update_op,
            parameter,
            gradient,
            *slots[:kept],
            *scalars,
            *slots[kept:],
            **self.attributes(decay),
        )
        after, *following = results if isinstance(results, tuple) else (results,)
        return after, tuple(following)
