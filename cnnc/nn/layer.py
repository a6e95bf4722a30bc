"""The base of all layers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ClassVar

from cnnc.checks import identifier, integer
from cnnc.errors import ShapeError
from cnnc.nn.trace import Call, Value
from cnnc.source import user_line


@dataclass(frozen=True, eq=False, kw_only=True)
class Layer:
    """A layer is plain data, and a function from values to a value.

    Calling one object twice shares its parameters. Its name is `name`, or its kind and a number by order of
    first call (``conv1``, ``conv2``, ``dense1``). A subclass is a frozen dataclass (with ``eq=False``: two
    layers of the same fields are two layers) with a `kind`, a `check` and a ``__call__``.
    """

    kind: ClassVar[str]
    __call__: ClassVar[Callable[..., Value]]
    """Each kind of layer has its own; so a list of layers is, to a type checker, one of functions."""

    name: str | None = None
    """Prefix of its parameters' and nodes' names."""
    where: str = field(init=False, repr=False, default="")
    """The user's file and line where it was made."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "where", user_line())
        if self.name is not None:
            identifier(type(self).__name__, "the name", self.name, ShapeError)
        self.check()

    def check(self) -> None:
        """Raise ShapeError where a field can't be right for any input."""

    def size(self, field: str, value: int, least: int = 1) -> int:
        """`value` where it is an integer of at least `least`. Raises ShapeError."""
        return integer(type(self).__name__, field, value, least, ShapeError)

    def error(self, what: str, hint: str = "") -> ShapeError:
        """An error about the layer's own fields."""
        return ShapeError(f"{type(self).__name__}: {what}", where=self.where, hint=hint)

    def call(self, *inputs: Value) -> Call:
        """Begin a call: every ``__call__`` starts with this."""
        return Call(self, inputs)
