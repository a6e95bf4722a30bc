"""The state of a training, as scripts see it: parameters with their gradients, and properties."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from cnnc.bundle import Array
from cnnc.errors import UsageError
from cnnc.ort_training.api.training_state import TrainingState
from cnnc.ort_training.checkpoint_file import Property


class Parameter:
    """A parameter of a `CheckpointState`. Its arrays are read-only: assign to `data` to change it."""

    def __init__(self, name: str, state: TrainingState) -> None:
        self._name, self._state = name, state

    @property
    def name(self) -> str:
        """Its name in the model."""
        return self._name

    @property
    def data(self) -> Array:
        """A copy of its values. Assigning an array of the same shape and type changes the parameter."""
        return _copy(self._state.values[self._name].numpy())

    @data.setter
    def data(self, value: Array) -> None:
        self._state.assign(self._name, value)

    @property
    def grad(self) -> Array | None:
        """A copy of the accumulated gradient; None if it is frozen, or where there is no module yet."""
        flat, offset = self._state.gradient, self._state.offsets.get(self._name)
        if flat is None or offset is None:
            return None
        shape = self._state.values[self._name].shape()
        return _copy(flat[offset : offset + int(np.prod(shape))].reshape(shape))

    @property
    def requires_grad(self) -> bool:
        """Whether it is trained."""
        return self._name in self._state.trainable

    def __repr__(self) -> str:
        return f"Parameter(name={self.name}, requires_grad={self.requires_grad})"


class Parameters:
    """The parameters by name: those that ``requires_grad`` and ``frozen_params`` named.

    Iterating gives pairs of a name and a `Parameter`, sorted by name. An unknown name raises KeyError.
    """

    def __init__(self, state: TrainingState) -> None:
        self._state = state
        self._names = sorted(state.parameters)

    def __getitem__(self, name: str) -> Parameter:
        if name not in self:
            raise KeyError(f"Parameter {name} not found.")
        return Parameter(name, self._state)

    def __setitem__(self, name: str, value: Array) -> None:
        self[name].data = value

    def __contains__(self, name: object) -> bool:
        return name in self._names

    def __iter__(self) -> Iterator[tuple[str, Parameter]]:
        return ((name, self[name]) for name in self._names)

    def __len__(self) -> int:
        return len(self._names)

    def __repr__(self) -> str:
        return repr(self._names)


class Properties:
    """Numbers and texts of the script's own, such as an epoch, that travel in the checkpoint.

    Iterating gives pairs of a name and a value. An unknown name raises KeyError, another type UsageError.
    """

    def __init__(self, state: TrainingState) -> None:
        self._state = state

    def __getitem__(self, name: str) -> Property:
        if name not in self:
            raise KeyError(f"Property {name} not found.")
        return self._state.properties[name]

    def __setitem__(self, name: str, value: Property) -> None:
        if isinstance(value, bool) or not isinstance(value, int | float | str):
            raise UsageError(f"property '{name}' is a {type(value).__name__}; it can be int, float or str.")
        self._state.properties[name] = value

    def __contains__(self, name: object) -> bool:
        return name in self._state.properties

    def __iter__(self) -> Iterator[tuple[str, Property]]:
        return iter(sorted(self._state.properties.items()))

    def __len__(self) -> int:
        return len(self._state.properties)

    def __repr__(self) -> str:
        return repr(sorted(self._state.properties))


class CheckpointState:
    """The state of a training. `load_checkpoint` makes one; a `Module` and an `Optimizer` move it on."""

    def __init__(self, state: TrainingState) -> None:
        self._state = state
        self._parameters, self._properties = Parameters(state), Properties(state)

    @classmethod
    def load_checkpoint(cls, checkpoint_uri: str | os.PathLike[str]) -> CheckpointState:
        """Read the checkpoint that generate_artifacts or `save_checkpoint` wrote. Raises RunError."""
        return cls(TrainingState(Path(checkpoint_uri)))

    @classmethod
    def save_checkpoint(
        cls,
        state: CheckpointState,
        checkpoint_uri: str | os.PathLike[str],
        include_optimizer_state: bool = False,
    ) -> None:
        """Write `state`, whole or not at all. Raises RunError.

        With `include_optimizer_state` a training that loads it goes on as if it had not stopped.
        """
        state._state.save(Path(checkpoint_uri), include_optimizer_state)

    @property
    def parameters(self) -> Parameters:
        """The model's parameters."""
        return self._parameters

    @property
    def properties(self) -> Properties:
        """The script's own properties."""
        return self._properties


def _copy(array: Array) -> Array:
    """A copy that says so where it is written to, instead of forgetting what was written."""
    copy = np.array(array)
    copy.flags.writeable = False
    return copy
