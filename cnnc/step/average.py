"""The moving average of what a training moves: the state that is evaluated and deployed.

Parameters that an optimizer moves at a constant rate never come to rest: they wander about where the loss is
lowest. Their average lies nearer to it (Polyak and Juditsky, 1992), and costs three operators a tensor.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import onnx_ir as ir

from cnnc.bundle import StateEntry
from cnnc.ir import Builder, Parameter
from cnnc.step.pace import pace

Values = Mapping[str, ir.Value]
WARM_UP = 9
"""After t updates an average goes back over about t / `WARM_UP` of them, until its decay limits that."""


@dataclass(frozen=True)
class Average:
    """The exponential moving average a of each of `tensors`, parameters and running statistics alike.

    After each update a ← a + s·(p - a), where s = max(1 - `decay`, 9 / (t + 9)) and t counts the updates
    before it: the first average is p itself, and a short training is averaged over its last tenth, not over
    its beginning. So does TensorFlow's ``ExponentialMovingAverage`` with ``num_updates`` = t - 1. An update
    follows every `accumulate` batches. A `decay` of None keeps no average.
    """

    tensors: Sequence[Parameter]
    dtype: ir.DataType
    decay: float | None = None
    accumulate: int = 1

    def entries(self) -> list[StateEntry]:
        """The state that it needs: ``<name>/average`` for each tensor, which it begins as."""
        if self.decay is None:
            return []
        copy = {"kind": "copy"}
        return [
            StateEntry(_averaged(p.name), "average", self.dtype.numpy().name, p.type.sizes, copy, p.name)
            for p in self.tensors
        ]

    def emit(self, builder: Builder, state: Values, following: Values) -> dict[str, ir.Value]:
        """Emit the next average of each tensor in `following`, the next values of some of the state."""
        mine = [p.name for p in self.tensors if p.name in following]
        if self.decay is None or not mine:
            return {}
        with builder.scope("average"):
            updates, ready = pace(builder, state["step"], self.accumulate)
            done = builder.op("Add", builder.op("Cast", updates, to=int(self.dtype)), float(WARM_UP))
            share = builder.op("Max", builder.op("Div", float(WARM_UP), done), 1.0 - self.decay)
        averages = {}
        for name in mine:
            with builder.scope(f"average/{name}", parameter=name):
                before = state[_averaged(name)]
                way = builder.op("Sub", following[name], before)
                moved = builder.op("Add", before, builder.op("Mul", way, share))
                if ready is not None:
                    moved = builder.op("Where", ready, moved, before)
                averages[_averaged(name)] = moved
        return averages


def _averaged(name: str) -> str:
    """The state name of a tensor's moving average."""
    return f"{name}/average"
