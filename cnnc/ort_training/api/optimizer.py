"""The optimizer: the graph that turns an accumulated gradient into the next parameters."""

from __future__ import annotations

import os

import numpy as np
import onnxruntime as ort

from cnnc.bundle import GRADIENT
from cnnc.errors import UsageError
from cnnc.ort_training.api.module import Module

_RATE, _STEP = "lr_scale", "step"


class Optimizer:
    """Moves the parameters of `module` by its accumulated gradient. The learning rate is 0.001 at first.

    Raises BundleError for a model that can't be loaded, UsageError for one that is not of this module.
    """

    def __init__(self, optimizer_uri: str | os.PathLike[str], module: Module) -> None:
        self._state = module._state
        self._graph = module.open_graph(optimizer_uri)
        inputs = self._graph.inputs
        gradient = self._state.gradient
        assert gradient is not None
        if GRADIENT not in inputs or inputs[GRADIENT].shape != [gradient.size]:
            raise UsageError(
                "this is no optimizer model of the module's parameters.",
                where=os.fspath(optimizer_uri),
                hint="Take the one that was generated with its training model.",
            )
        for name in inputs.keys() - {GRADIENT, _RATE} - self._state.values.keys():
            dtype = "int64" if name == _STEP else gradient.dtype.name
            self._state.add_slot(name, inputs[name].shape, dtype)
        if self._state.learning_rate is None:
            self.set_learning_rate(1e-3)

    def step(self) -> None:
        """Update the parameters. The gradient stays: `Module.lazy_reset_grad` begins a new one."""
        gradient = self._state.gradient
        assert gradient is not None
        from_numpy = ort.OrtValue.ortvalue_from_numpy
        rate = np.array(self._state.learning_rate, gradient.dtype)
        self._graph.run(self._state, {GRADIENT: from_numpy(gradient), _RATE: from_numpy(rate)})

    def set_learning_rate(self, learning_rate: float) -> None:
        """The learning rate of the next steps, held in float32."""
        self._state.learning_rate = float(np.float32(learning_rate))

    def get_learning_rate(self) -> float:
        """The learning rate of the next step."""
        assert self._state.learning_rate is not None
        return self._state.learning_rate

    @property
    def finished_steps(self) -> int:
        """Number of steps so far, those before a checkpoint with the optimizer's state included."""
        return int(self._state.values[_STEP].numpy())
