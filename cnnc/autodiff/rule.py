"""The table of gradient rules, and what a rule sees of the node it differentiates.

A rule is mathematics only. It takes a `Context` and the gradient of each output (None where an output has
none), and returns the gradient of each input, None for inputs that have none::

    @rule("Sigmoid")
    def sigmoid(op: Context, dy: Value) -> Gradients:
        return op.Mul(dy, op.Mul(op.y, op.Sub(1.0, op.y)))

A gradient may have its output's broadcast shape: the engine sums it down to the input's. A single value
stands for the gradient of the first input, with None for the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy.typing as npt
import onnx
import onnx_ir as ir

from cnnc.errors import UnsupportedError
from cnnc.ir import GRAD_OPS, Builder, Dim, Ops, TensorType, dims_of, type_of
from cnnc.opset import OPSET

Value = ir.Value
Gradients = Value | Sequence[Value | None] | None
Rule = Callable[..., Gradients]
_R = TypeVar("_R", bound=Rule)

RULES: dict[str, Rule] = {}


def rule(*op_types: str) -> Callable[[_R], _R]:
    """Register a function as the gradient rule of these operators."""

    def register(function: _R) -> _R:
        for op_type in op_types:
            if op_type in RULES:
                raise ValueError(f"{op_type} has a gradient rule already")
            RULES[op_type] = function
        return function

    return register


class Context(Ops):
    """A forward node as its rule sees it; ``op.Mul(a, b)`` appends a node to the graph."""

    def __init__(self, builder: Builder, node: ir.Node, needed: Sequence[bool]) -> None:
        super().__init__(builder)
        self.node = node
        self.needed = needed

    @property
    def inputs(self) -> Sequence[Value | None]:
        """The node's inputs; an absent optional one is None."""
        return self.node.inputs

    @property
    def present(self) -> list[Value]:
        """The inputs that are there: all of them, for an operator without optional ones."""
        return [value for value in self.node.inputs if value is not None]

    @property
    def x(self) -> Value:
        """The first input."""
        value = self.node.inputs[0]
        assert value is not None
        return value

    @property
    def y(self) -> Value:
        """The first output."""
        return self.node.outputs[0]

    def input(self, index: int) -> Value | None:
        """Input number `index`, or None where it is absent."""
        return self.node.inputs[index] if index < len(self.node.inputs) else None

    def type(self, value: Value) -> TensorType:
        """Element type and dimensions."""
        return type_of(value)

    def dims(self, value: Value) -> tuple[Dim, ...]:
        """Dimensions: sizes and symbols."""
        return dims_of(value)

    def attr(self, name: str) -> Any:
        """An attribute's value, or its default in the operator's schema (None where it has none)."""
        if name in self.node.attributes:
            value = self.node.attributes[name].value
            return list(value) if isinstance(value, tuple) else value
        if self.node.op_type in GRAD_OPS:
            raise KeyError(name)
        default = onnx.defs.get_schema(self.node.op_type, OPSET, "").attributes[name].default_value
        if not default.type:
            return None
        value = onnx.helper.get_attribute_value(default)
        return value.decode() if isinstance(value, bytes) else value

    def known(self, index: int) -> npt.NDArray[Any] | None:
        """Input `index` where it is a constant; None where it is computed or absent."""
        value = self.input(index)
        tensor = None if value is None else ir.convenience.get_const_tensor(value)
        return None if tensor is None else tensor.numpy()

    def constant(self, index: int) -> list[Any] | None:
        """Input `index`, a constant, as a flat list; None where it is absent.

        Raises UnsupportedError where it is computed.
        """
        value = self.input(index)
        if value is None:
            return None
        array = self.known(index)
        if array is None:
            raise self.unsupported(f"input '{value.name}', which is computed")
        return array.ravel().tolist()

    def number(self, value: npt.ArrayLike) -> Value:
        """A constant of the output's element type."""
        return self.builder.constant(value, self.type(self.y).dtype)

    def mask(self, condition: Value) -> Value:
        """1 where the condition holds, else 0, in the output's element type."""
        return self.Cast(condition, to=int(self.type(self.y).dtype))

    def unsupported(self, what: str) -> UnsupportedError:
        """The error of a rule that has no gradient for some use of its operator."""
        return UnsupportedError(
            f"operator {self.node.op_type} (node '{self.node.name}') has no gradient with {what}.",
            where=self.node.metadata_props.get("cnnc.where", ""),
        )
