"""The table of bodies, and what a body sees of the gradient op it implements.

A body takes a `Call` and the op's inputs and returns the op's outputs, in the order of `cnnc.ir.grad_ops`::

    @body("ConvGradInput", legal=lambda call: all(s == 1 for s in call.window.strides))
    def flipped(op: Call, dy: Value, w: Value, x: Value) -> Value: ...

Bodies of one op stand in order of preference: the first that is legal is the portable default. All of them
give the same function; one that does so only up to a wider rounding says ``exact=False`` and is never a
default.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar

import onnx_ir as ir

from cnnc.ir import GRAD_OPS, Builder, Dim, Ops, dims_of
from cnnc.ir.windows import Window, window_of

Value = ir.Value
Emit = Callable[..., Value | Sequence[Value]]
_E = TypeVar("_E", bound=Emit)


class Call(Ops):
    """One use of a gradient op: its attributes, its input types, and ``op.Mul(a, b)`` to emit its body."""

    def __init__(self, node: ir.Node, builder: Builder) -> None:
        super().__init__(builder)
        self.node = node

    @cached_property
    def window(self) -> Window:
        """The sliding window of a convolution or pool."""
        return window_of(self.node)

    def attr(self, name: str) -> Any:
        """An attribute's value."""
        return self.node.attributes[name].value

    def input(self, name: str) -> Value | None:
        """The input that the op calls `name`, as it stands in the calling graph; None where absent."""
        names = [n.rstrip("?") for n in GRAD_OPS[self.node.op_type].inputs]
        index = names.index(name)
        return self.node.inputs[index] if index < len(self.node.inputs) else None

    def dims(self, value: Value | str) -> tuple[Dim, ...]:
        """Dimensions of a value, or of the input of that name."""
        if isinstance(value, str):
            named = self.input(value)
            assert named is not None
            value = named
        return dims_of(value)


@dataclass(frozen=True)
class Body:
    """One way to compute a gradient op."""

    op: str
    name: str
    emit: Emit
    legal: Callable[[Call], bool]
    exact: bool

    @property
    def doc(self) -> str:
        """What is done, in words."""
        return (self.emit.__doc__ or "").strip()


BODIES: dict[str, list[Body]] = {name: [] for name in GRAD_OPS}


def body(
    op: str, *, legal: Callable[[Call], bool] = lambda call: True, exact: bool = True
) -> Callable[[_E], _E]:
    """Register a function as a body of gradient op `op`."""

    def register(emit: _E) -> _E:
        BODIES[op].append(Body(op, emit.__name__.rstrip("_"), emit, legal, exact))
        return emit

    return register
