"""Graphs whose inputs and outputs are bound to memory once, and run on it many times."""

from __future__ import annotations

from collections.abc import Container, Mapping
from typing import Any, Protocol

import numpy as np
import onnxruntime as ort

from cnnc.bundle import NEXT, Array, Bundle, metric_count, metric_sum
from cnnc.runtime.session.specs import dtype_of

Sums = dict[str, tuple[Any, float]]
"""What metrics are made of: a sum over a batch, a number or nested lists of them, and the count in it."""


Sets = tuple[dict[str, ort.OrtValue], dict[str, ort.OrtValue]]
"""The two sets of buffers of the state, by name."""


class Outputs:
    """Outputs of fixed size that land in host memory: binding them once makes reading one an array read."""

    def __init__(self, bundle: Bundle, session: ort.InferenceSession) -> None:
        self.arrays = {
            output.name: np.zeros(output.shape, dtype_of(output.type))
            for output in session.get_outputs()
            if not output.name.startswith(NEXT)
        }
        self._metrics = [
            (name, self.arrays[metric_sum(name)], self.arrays[metric_count(name)])
            for name in bundle.manifest.counted
        ]

    def bind(self, binding: ort.IOBinding, names: Container[str] | None = None) -> None:
        """Bind them all, or those of them that `names` holds."""
        for name, array in self.arrays.items():
            if names is None or name in names:
                binding.bind_ortvalue_output(name, ort.OrtValue.ortvalue_from_numpy(array))

    def sums(self) -> Sums:
        """The metrics of the last run."""
        return {name: (total.tolist(), count.item()) for name, total, count in self._metrics}


class Graph(Protocol):
    """What a step runs, or one of several that it runs one after the other."""

    inputs: set[str]
    outputs: set[str]

    def bind(self, name: str, value: ort.OrtValue) -> None:
        """Bind an input for all steps to come, where the graph has it."""

    def feed(self, turn: int, name: str, array: Array) -> None:
        """Bind an array, which the caller keeps, for the next run on set `turn`, if the graph has it."""

    def run(self, turn: int) -> None:
        """One run that reads set `turn` of the state and writes the other."""


class Loaded:
    """A graph that reads the state from one set of buffers and writes what it moves to the other, in turns.

    `between` are values that it gives to another graph of the same step, or takes from it.
    """

    def __init__(
        self,
        session: ort.InferenceSession,
        sets: Sets,
        outputs: Outputs | None = None,
        between: Mapping[str, ort.OrtValue] | None = None,
    ) -> None:
        self.session = session
        self.inputs = {value.name for value in session.get_inputs()}
        self.outputs = {value.name for value in session.get_outputs()}
        self.bindings = (session.io_binding(), session.io_binding())
        for turn, binding in enumerate(self.bindings):
            for name, value in {**sets[turn], **(between or {})}.items():
                if name in self.inputs:
                    binding.bind_ortvalue_input(name, value)
            following = {NEXT + name: value for name, value in sets[1 - turn].items()}
            for name, value in {**following, **(between or {})}.items():
                if name in self.outputs:
                    binding.bind_ortvalue_output(name, value)
            if outputs is not None:
                outputs.bind(binding, self.outputs)

    def bind(self, name: str, value: ort.OrtValue) -> None:
        """Bind an input for all steps to come, where the graph has it."""
        if name in self.inputs:
            for binding in self.bindings:
                binding.bind_ortvalue_input(name, value)

    def feed(self, turn: int, name: str, array: Array) -> None:
        """Bind an array, which the caller keeps, for the next run on set `turn`, if the graph has it."""
        if name in self.inputs:
            self.bindings[turn].bind_ortvalue_input(name, ort.OrtValue.ortvalue_from_numpy(array))

    def run(self, turn: int) -> None:
        """One run that reads set `turn`."""
        self.session.run_with_iobinding(self.bindings[turn])
