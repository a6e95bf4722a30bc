"""The inputs of a step's graphs, under the names of the bundle's contract."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from cnnc.bundle import Array, StateEntry
from cnnc.ir import Builder, TensorType, type_of
from cnnc.step.training import Training

Values = dict[str, ir.Value]


@dataclass(frozen=True)
class Inputs:
    """The values that a graph begins with: images [N, C, H, W], and by name targets, scalars and state."""

    image: ir.Value
    targets: Values
    scalars: Values
    state: Values

    @classmethod
    def of(
        cls, builder: Builder, training: Training, *, scalars: Sequence[str] = (), state: Sequence[StateEntry]
    ) -> Inputs:
        """Declare a batch, these scalars, and this state, in this order."""
        image = image_input(builder, training)
        types = training.heads.input_types()
        targets = {name: builder.input(name, type_) for name, type_ in types.items()}
        return cls(
            image,
            targets,
            scalar_inputs(builder, training, *scalars),
            state_inputs(builder, state),
        )


def image_input(builder: Builder, training: Training) -> ir.Value:
    """Declare the input that holds the images."""
    value = training.network.input
    return builder.input(str(value.name), type_of(value))


def scalar_inputs(builder: Builder, training: Training, *names: str) -> Values:
    """Declare the scalars of these names: ``lr_scale``, ``seed``."""
    types = {"lr_scale": training.dtype, "seed": ir.DataType.INT64}
    return {name: builder.input(name, TensorType(types[name], ())) for name in names}


def state_inputs(builder: Builder, state: Sequence[StateEntry]) -> Values:
    """Declare this state."""
    return {
        e.name: builder.input(e.name, TensorType(ir.DataType.from_numpy(np.dtype(e.dtype)), e.shape))
        for e in state
    }


def weight_constants(builder: Builder, training: Training, state: Mapping[str, Array]) -> Values:
    """Put the network's parameters into the graph as initializers, with their values in `state`."""
    found = {}
    for value in training.network.graph.inputs[1:]:
        name = str(value.name)
        weight = ir.Value(
            name=builder.unique(name),
            type=value.type,
            shape=value.shape,
            const_value=ir.tensor(state[name], name=name),
        )
        builder.graph.register_initializer(weight)
        found[name] = weight
    return found
