"""What the module, the optimizer and the checkpoint share: the state of a training."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnxruntime as ort

from cnnc.bundle import NEXT, Array
from cnnc.errors import DataError, RunError, os_errors_as
from cnnc.ort_training.checkpoint_file import Property, Record, encode, load
from cnnc.runtime.belongings import check_unowned
from cnnc.runtime.files import write_whole


class TrainingState:
    """The state by name, as values on the device that the sessions read and replace.

    `parameters` and `trainable` are in the model's order; `slots` names what belongs to the optimizer.
    `gradient` is the flat gradient accumulated so far, where the trainable parameter p begins at
    ``offsets[p]``; there is none before a module.
    """

    def __init__(self, path: Path) -> None:
        tensors, record = load(path)
        self.parameters, self.trainable = record.parameters, record.trainable
        self.properties: dict[str, Property] = record.properties
        self.learning_rate, self.calls = record.learning_rate, record.calls
        self.device = "cpu"
        self.values = {name: ort.OrtValue.ortvalue_from_numpy(array) for name, array in tensors.items()}
        self.slots = set(record.slots)
        self.gradient: Array | None = None
        self.offsets: dict[str, int] = {}
        self._spare: dict[str, ort.OrtValue] = {}

    def save(self, path: Path, with_optimizer: bool) -> None:
        """Write the checkpoint whole or not at all. Raises RunError."""
        left_out = set() if with_optimizer else self.slots
        record = Record(
            self.parameters,
            self.trainable,
            tuple(sorted(self.slots)) if with_optimizer else (),
            self.properties,
            self.learning_rate if with_optimizer else None,
            self.calls if with_optimizer else 0,
        )
        tensors = {name: value.numpy() for name, value in self.values.items() if name not in left_out}
        check_unowned(path, RunError)
        with os_errors_as(RunError, "the checkpoint can't be written", where=path):
            write_whole(path, encode(tensors, record))

    def lay_out_gradient(self, order: Sequence[str]) -> Array:
        """Begin with a gradient of zeros, in which the trainable parameters lie in this order."""
        size, dtype = 0, np.dtype(np.float32)
        for name in order:
            if name in self.trainable:
                values = self.values[name].numpy()
                self.offsets[name] = size
                size, dtype = size + values.size, values.dtype
        self.gradient = np.zeros(size, dtype)
        return self.gradient

    def move(self, device: str) -> None:
        """Keep all values on `device` from now on: ``cpu`` or ``cuda``."""
        if device != self.device:
            from_numpy = ort.OrtValue.ortvalue_from_numpy
            self.values = {name: from_numpy(value.numpy(), device) for name, value in self.values.items()}
            self.device, self._spare = device, {}

    def add_slot(self, name: str, shape: Sequence[int], dtype: str) -> None:
        """Let the optimizer have another tensor of state, which begins at zero."""
        self.slots.add(name)
        self.values[name] = ort.OrtValue.ortvalue_from_numpy(np.zeros(shape, dtype), self.device)

    def assign(self, name: str, array: Array) -> None:
        """Give a tensor other values. Raises DataError for another shape or type."""
        array, old = np.asarray(array), self.values[name].numpy()
        if array.shape != old.shape or array.dtype != old.dtype:
            raise DataError(
                f"'{name}' is {old.dtype.name} {list(old.shape)}; it can't be given "
                f"{array.dtype.name} {list(array.shape)}."
            )
        self.values[name].update_inplace(np.ascontiguousarray(array).reshape(array.shape))

    def bind(self, binding: ort.IOBinding, inputs: Sequence[str], outputs: Sequence[str]) -> None:
        """Bind state `inputs` to where they are, and the next values of `outputs` to second buffers.

        Writing in place would be a race: a new value may be stored before the last reader of the old ran.
        """
        for name in inputs:
            binding.bind_ortvalue_input(name, self.values[name])
        for name in outputs:
            if name not in self._spare:
                old = self.values[name].numpy()
                self._spare[name] = ort.OrtValue.ortvalue_from_shape_and_type(
                    old.shape, old.dtype, self.device
                )
            binding.bind_ortvalue_output(NEXT + name, self._spare[name])

    def advance(self, names: Sequence[str]) -> None:
        """What was written to the second buffers of `names` is now the state."""
        for name in names:
            self.values[name], self._spare[name] = self._spare[name], self.values[name]
