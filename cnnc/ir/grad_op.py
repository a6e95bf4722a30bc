"""The signature of a gradient op."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cnnc.ir.types import TensorType

Infer = Callable[[Mapping[str, TensorType], Mapping[str, Any]], TensorType]


@dataclass(frozen=True)
class GradOp:
    """The signature of a gradient op.

    `inputs` are names, those that end in ``?`` optional; `outputs` maps a name to the input whose type it
    has, or to a function from the inputs' types and the attributes to its type; an output like an optional
    input is there where that input is. `attributes` maps a name to its Python type.
    """

    name: str
    doc: str
    inputs: tuple[str, ...]
    outputs: Mapping[str, str | Infer]
    attributes: Mapping[str, type]

    def infer(self, types: Sequence[TensorType | None], attributes: Mapping[str, Any]) -> list[TensorType]:
        """The types of the outputs from those of the inputs (None: an absent one) and the attributes."""
        required = [name for name in self.inputs if not name.endswith("?")]
        if not len(required) <= len(types) <= len(self.inputs):
            raise ValueError(f"{self.name} takes {', '.join(self.inputs)}; {len(types)} inputs were given")
        named = {name.rstrip("?"): t for name, t in zip(self.inputs, types, strict=False) if t is not None}
        if missing := [name for name in required if name not in named]:
            raise ValueError(f"{self.name} needs its input {missing[0]}")
        return [
            named[like] if isinstance(like, str) else like(named, attributes)
            for like in self.outputs.values()
            if not isinstance(like, str) or like in named
        ]


def grad_op(
    name: str, doc: str, inputs: str, outputs: Mapping[str, str | Infer], **attributes: type
) -> GradOp:
    """A row of a table: `inputs` in one text, attributes by keyword."""
    return GradOp(name, doc, tuple(inputs.split()), outputs, attributes)
