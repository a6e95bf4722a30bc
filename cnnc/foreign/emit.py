"""One node under rewriting: what a form of an operator knows of it, and how it appends nodes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from onnx import NodeProto, helper

from cnnc.errors import UnsupportedError
from cnnc.foreign.protos import label


class Facts(Protocol):
    """What is known of the values that a node reads."""

    def rank(self, name: str) -> int:
        """Number of dimensions."""

    def dtype(self, name: str) -> int:
        """Element type."""

    def dims(self, name: str) -> tuple[int | None, ...]:
        """The sizes; None where one is another for other batches, or depends on data."""

    def known(self, name: str) -> npt.NDArray[Any] | None:
        """The numbers of a constant that is the same for every batch; None where it is computed."""

    def constant(self, array: npt.NDArray[Any]) -> str:
        """The name of a constant."""

    def fresh(self, name: str) -> str:
        """A new name like `name`."""


@dataclass
class Emit:
    """One node under rewriting, and the nodes that replace it."""

    node: NodeProto
    version: int
    facts: Facts
    attributes: dict[str, Any]
    nodes: list[NodeProto] = field(default_factory=list)

    def op(self, op_type: str, *inputs: str | npt.NDArray[Any], **attributes: Any) -> str:
        """Append a node with one output and return its name; arrays become constants."""
        output = self.facts.fresh(self.node.output[0])
        self.put(op_type, inputs, [output], **attributes)
        return output

    def put(
        self,
        op_type: str,
        inputs: Sequence[str | npt.NDArray[Any]],
        outputs: Sequence[str] | None = None,
        **attributes: Any,
    ) -> list[NodeProto]:
        """Append the node that gives the source's own outputs, and return all nodes."""
        names = [name if isinstance(name, str) else self.facts.constant(name) for name in inputs]
        while names and not names[-1]:
            names.pop()
        kept = {key: value for key, value in attributes.items() if value is not None}
        outputs = list(outputs or self.node.output)
        name = self.node.name if outputs[0] == self.node.output[0] else outputs[0]
        node = helper.make_node(op_type, names, outputs, name, **kept)
        self.nodes.append(node)
        return self.nodes

    def input(self, index: int) -> str:
        """The name of input `index`, empty where it is absent."""
        return self.node.input[index] if index < len(self.node.input) else ""

    def unsupported(self, what: str) -> UnsupportedError:
        """The error of a form that our opset can't say."""
        return UnsupportedError(f"{label(self.node)} of opset {self.version} {what}.")

    def typed(self, number: float) -> npt.NDArray[Any]:
        """A scalar of the first input's element type."""
        return np.asarray(number, helper.tensor_dtype_to_np_dtype(self.facts.dtype(self.node.input[0])))


Form = Callable[[Emit], list[NodeProto] | None]
"""From a node of the source's opset to the nodes that stand for it, None where it is as our opset has it."""


def integers(values: Any) -> npt.NDArray[Any]:
    """An int64 constant."""
    return np.asarray(values, np.int64)
