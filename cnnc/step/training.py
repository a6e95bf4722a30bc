"""What a step is made for: a network, the recipe by which it is trained, and the facts that follow."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import onnx_ir as ir

from cnnc import initial
from cnnc.augment import Augmentation
from cnnc.bundle import Array, Preprocessing, StateEntry
from cnnc.heads import Head, Heads, types_of
from cnnc.ir import Network, Parameter, type_of
from cnnc.optim import Optimizer
from cnnc.step.average import Average
from cnnc.step.form import dropout_ratio
from cnnc.step.update import ZERO, Update


@dataclass(frozen=True)
class Recipe:
    """How a network is to be trained, and what its data is: all that a network itself does not say."""

    name: str
    heads: Sequence[Head]
    optimizer: Optimizer
    preprocessing: Preprocessing
    accumulate: int = 1
    average: float | None = None
    augment: Sequence[Augmentation] = ()


Revision = Callable[[Network, Recipe], Recipe]
"""What makes another recipe once the network is known."""


@dataclass(frozen=True)
class Training:
    """A network and its recipe; `seed` draws the initial parameters."""

    network: Network
    recipe: Recipe
    seed: int = 0

    @cached_property
    def state(self) -> tuple[StateEntry, ...]:
        """The state: parameters, running statistics, optimizer slots, averages, the step counter."""
        entries = []
        offset = 0
        for p in self.network.parameters.values():
            trained = p in self.trained
            entries.append(
                StateEntry(
                    p.name,
                    "buffer" if p.kind == "statistic" else "parameter",
                    p.type.dtype.numpy().name,
                    p.type.sizes,
                    p.initial,
                    trainable=trained,
                    offset=offset if trained else None,
                )
            )
            offset += entries[-1].size if trained else 0
        kept = (*self.update.entries(), *self.average.entries())
        return (*entries, *kept, StateEntry("step", "counter", "int64", (), ZERO))

    @cached_property
    def network_state(self) -> tuple[StateEntry, ...]:
        """The state that the network itself reads: parameters and running statistics."""
        return tuple(entry for entry in self.state if entry.role in ("parameter", "buffer"))

    @cached_property
    def update_state(self) -> tuple[StateEntry, ...]:
        """The state that an update reads and moves: all but the running statistics and their averages."""
        return tuple(e for e in self.state if self._statistics.isdisjoint((e.name, e.of)))

    @cached_property
    def batch_state(self) -> tuple[StateEntry, ...]:
        """The state that forward and backward read and move: the network's, and the statistics' averages.

        The step counts there where something is drawn at random or averaged.
        """
        averages = tuple(e for e in self.state if e.of in self._statistics)
        counter = tuple(e for e in self.state if e.role == "counter")
        return (*self.network_state, *averages, *(counter if self.random or averages else ()))

    @cached_property
    def _statistics(self) -> set[str]:
        """The names of the running statistics."""
        return {entry.name for entry in self.state if entry.role == "buffer"}

    @cached_property
    def trained(self) -> list[Parameter]:
        """The parameters with a gradient, in the order of the flat gradient."""
        return [p for p in self.network.parameters.values() if p.kind != "statistic" and p.trainable]

    @cached_property
    def random(self) -> tuple[str, ...]:
        """The scalar ``seed``, where the training form draws random numbers."""
        nodes = self.network.graph
        drops = any(node.op_type == "Dropout" and dropout_ratio(node) > 0 for node in nodes)
        return ("seed",) if drops or self.recipe.augment else ()

    @cached_property
    def heads(self) -> Heads:
        """The network's outputs and what each is trained for."""
        return Heads(self.recipe.heads, types_of(self.network.outputs))

    @cached_property
    def update(self) -> Update:
        """How the trained parameters move."""
        recipe = self.recipe
        return Update(self.trained, recipe.optimizer, self.dtype, recipe.accumulate)

    @cached_property
    def average(self) -> Average:
        """The moving average of the trained parameters and of the running statistics that move."""
        moving = [p for p in self.network.parameters.values() if p.trainable]
        return Average(moving, self.dtype, self.recipe.average, self.recipe.accumulate)

    @cached_property
    def dtype(self) -> ir.DataType:
        """The element type in which it is computed."""
        return type_of(self.network.outputs[0]).dtype

    def initial_state(self) -> dict[str, Array]:
        """The first value of each entry of the state."""
        state: dict[str, Array] = {}
        for entry in self.state:
            if entry.initial["kind"] == "stored":
                state[entry.name] = self.network.values[entry.name]
            elif entry.initial["kind"] == "copy":
                state[entry.name] = state[str(entry.of)]
            else:
                state[entry.name] = initial.draw(
                    entry.initial, entry.shape, entry.dtype, self.seed, entry.name
                )
        return state
