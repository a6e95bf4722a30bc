"""The last piece of the step: from gradients to the next parameters.

::

    gradients ─► gathered over `accumulate` batches ─► clipped ─► optimizer

Without branches: a step that only gathers computes the update, too, and keeps the state as it was.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import onnx_ir as ir

from cnnc.bundle import StateEntry
from cnnc.ir import Builder, Parameter
from cnnc.optim import Optimizer
from cnnc.optim.group import Own
from cnnc.step.pace import pace

Values = Mapping[str, ir.Value]
GATHERED = "accumulated/count"
"""State: what the losses of the batches gathered so far have counted."""
SMALLEST = 1e-30
"""In place of a count of 0: below any sum of weights."""
ZERO = {"kind": "constant", "value": 0.0}


@dataclass(frozen=True)
class Update:
    """How the trained `parameters` move.

    An update follows every `accumulate` batches, from the mean gradient over all that their losses count,
    whatever the sizes of the batches.
    """

    parameters: Sequence[Parameter]
    optimizer: Optimizer
    dtype: ir.DataType
    accumulate: int = 1

    def entries(self) -> list[StateEntry]:
        """The state that it needs beside the parameters and the step."""
        entries, dtype = [], self.dtype.numpy().name
        for p in self.parameters:
            shape = p.type.sizes
            for slot in self.optimizer.slots(shape):
                first = {"kind": "constant", "value": slot.value}
                entries.append(StateEntry(f"{p.name}/{slot.name}", "slot", dtype, slot.shape, first, p.name))
        if self.accumulate > 1:
            entries += [
                StateEntry(_gathered(p), "accumulator", dtype, p.type.sizes, ZERO, p.name)
                for p in self.parameters
            ]
            entries.append(StateEntry(GATHERED, "accumulator", dtype, (), ZERO))
        return entries

    def emit(
        self, builder: Builder, scalars: Values, state: Values, gradients: Values, count: ir.Value | None
    ) -> dict[str, ir.Value]:
        """Emit the next value of the step and of everything the update moves.

        `gradients` are of the mean loss of one batch, by parameter, and `count` is what that loss counts:
        it is needed where batches are gathered.
        """
        following = {}
        with builder.scope("update"):
            following["step"] = builder.op("Add", state["step"], 1)
        with builder.scope("accumulate"):
            updates, ready = pace(builder, state["step"], self.accumulate)
            if ready is not None:
                assert count is not None
                gradients, gathered = self._gather(builder, state, gradients, count, ready)
                following |= gathered
        moved = self._move(builder, scalars, state, gradients, updates)
        if ready is not None:
            with builder.scope("accumulate"):
                moved = {
                    name: builder.op("Where", ready, value, state[name]) for name, value in moved.items()
                }
        return following | moved

    def _gather(
        self, builder: Builder, state: Values, gradients: Values, count: ir.Value, ready: ir.Value
    ) -> tuple[dict[str, ir.Value], dict[str, ir.Value]]:
        """The mean gradients over all batches gathered, and the next accumulators: 0 after an update."""
        weight = builder.op("Cast", count, to=int(self.dtype))
        counted = builder.op("Add", state[GATHERED], weight)
        divisor = builder.op("Max", counted, SMALLEST)
        means, following = {}, {GATHERED: builder.op("Where", ready, 0.0, counted)}
        for parameter in self.parameters:
            name = _gathered(parameter)
            total = builder.op("Add", state[name], builder.op("Mul", gradients[parameter.name], weight))
            means[parameter.name] = builder.op("Div", total, divisor)
            following[name] = builder.op("Where", ready, 0.0, total)
        return means, following

    def _move(
        self, builder: Builder, scalars: Values, state: Values, gradients: Values, updates: ir.Value
    ) -> dict[str, ir.Value]:
        """The parameters and slots after an update."""
        owns = self.optimizer.own(self.parameters)
        with builder.scope("update"):
            rate = self.optimizer.schedule.emit(builder, updates, self.dtype)
            rate = builder.op("Mul", rate, scalars["lr_scale"], name="update/learning_rate")
            shared = {1.0: self.optimizer.scalars(builder, updates, rate)}
            for factor in sorted({own.rate_factor for own in owns.values()} - {1.0}):
                other = builder.op("Mul", rate, factor, name=f"update/learning_rate/{factor:g}")
                shared[factor] = self.optimizer.scalars(builder, updates, other)
        with builder.scope("clip"):
            clipped = self.optimizer.clip(builder, [gradients[p.name] for p in self.parameters])
        moved = {}
        for parameter, gradient in zip(self.parameters, clipped, strict=True):
            name = parameter.name
            slots = [f"{name}/{slot.name}" for slot in self.optimizer.slots(parameter.type.sizes)]
            values = [state[slot] for slot in slots]
            decay, own = parameter.kind == "weight", owns.get(name, Own())
            optimizer = self.optimizer
            if own.weight_decay is not None:
                optimizer = replace(optimizer, weight_decay=own.weight_decay)
            with builder.scope(f"update/{name}", parameter=name):
                after, next_slots = optimizer.update(
                    builder, state[name], gradient, values, shared[own.rate_factor], decay
                )
            moved[name] = builder.rename(after, f"update/{name}")
            moved.update(zip(slots, next_slots, strict=True))
        return moved


def _gathered(parameter: Parameter) -> str:
    """The state name of the sum of a parameter's gradients."""
    return f"{parameter.name}/gradient_sum"
