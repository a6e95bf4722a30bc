"""Images and parameters for frameworks that keep the channels last."""

from __future__ import annotations

import numpy as np

from benchmarks.architectures import Conv, Dense, Flatten, Layers, with_parameters
from benchmarks.workers.protocol import Array, Job


def channels_last_batches(job: Job) -> list[tuple[Array, Array]]:
    """Images [N, H, W, C] and labels [N]."""
    return [(np.ascontiguousarray(x.transpose(0, 2, 3, 1)), y) for x, y in job.batches()]


def channels_last_state(job: Job) -> dict[str, Array]:
    """Filters [O, I, H, W] as [H, W, I, O]; behind Flatten the rows [C · H · W] as [H · W · C]."""
    state, layers = job.state(), job.architecture.layers
    for layer in with_parameters(layers):
        name = f"{layer.name}.weight"
        if isinstance(layer, Conv):
            state[name] = state[name].transpose(2, 3, 1, 0)
    if channels := _flattened_channels(layers):
        dense = next(layer for layer in layers if isinstance(layer, Dense))
        name = f"{dense.name}.weight"
        rows = state[name].reshape(channels, -1, dense.outputs)
        state[name] = rows.transpose(1, 0, 2).reshape(dense.inputs, dense.outputs)
    return {name: np.ascontiguousarray(array) for name, array in state.items()}


def _flattened_channels(layers: Layers) -> int:
    """The channels of the image that Flatten takes; 0 where there is none."""
    if not any(isinstance(layer, Flatten) for layer in layers):
        return 0
    return [layer.outputs for layer in with_parameters(layers) if isinstance(layer, Conv)][-1]
