"""The module: a training model and an evaluation model that share one state."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

from cnnc.bundle import GRADIENT, Array
from cnnc.errors import DataError, ProviderError, UsageError
from cnnc.ort_training.api.checkpoint_state import CheckpointState
from cnnc.ort_training.api.sessions import Graph
from cnnc.runtime.providers import choose

_SCALARS = ("seed", "step")
"""Inputs that a graph with dropout has: its mask is a function of them."""


class Module:
    """A model in training, or in evaluation: `training` says which.

    `device` is ``cpu`` or ``cuda``; nothing falls back from the one to the other. `session_options` are ONNX
    Runtime's, for both models. Raises BundleError for a model that can't be loaded, UsageError where the
    checkpoint is another model's, ProviderError for a device that can't be had.
    """

    training: bool

    def __init__(
        self,
        train_model_uri: str | os.PathLike[str],
        state: CheckpointState,
        eval_model_uri: str | os.PathLike[str] | None = None,
        device: str = "cpu",
        session_options: ort.SessionOptions | None = None,
    ) -> None:
        self.training = True
        kind, _, index = device.partition(":")
        if index not in ("", "0"):
            raise ProviderError(
                f"device '{device}' is not offered: the first device of a kind alone is.",
                hint="CUDA_VISIBLE_DEVICES says which one is the first.",
            )
        self._provider, self._options = choose(kind), session_options
        self._state = state._state
        self._state.move(self._provider.device)
        self._train = self.open_graph(train_model_uri)
        self._eval = None if eval_model_uri is None else self.open_graph(eval_model_uri)
        if GRADIENT not in self._train.outputs:
            raise UsageError("this is no training model.", where=os.fspath(train_model_uri))
        for name in self._state.parameters:
            if name not in self._train.inputs:
                raise UsageError(
                    f"the checkpoint has a parameter '{name}', which this training model has not.",
                    where=os.fspath(train_model_uri),
                    hint="Take the checkpoint that was generated with it.",
                )
        self._gradient = self._state.lay_out_gradient(list(self._train.inputs))
        self._scratch: Array | None = None
        self._reset = True

    def __call__(self, *user_inputs: Array | ort.OrtValue) -> Any:
        """Run one step: the model's inputs, and then the labels or target, by position.

        Returns the loss (an array of no axes), or a tuple of it and the additional outputs; for OrtValues
        only, OrtValues. In training the gradient of the batch is added to what is accumulated. Raises
        UsageError for another number of inputs, DataError for labels that are no class, ModelError where ONNX
        Runtime fails.
        """
        graph = self._current()
        names = self._user_inputs(graph)
        if len(user_inputs) != len(names):
            raise UsageError(
                f"the model takes {len(names)} inputs ({', '.join(names)}), not {len(user_inputs)}."
            )
        given = [
            value if isinstance(value, ort.OrtValue) else ort.OrtValue.ortvalue_from_numpy(_plain(value))
            for value in user_inputs
        ]
        if graph.classes:
            _check_labels(given[-1].numpy(), graph.classes)
        feeds = dict(zip(names, given, strict=True))
        outputs = self._train_step(feeds) if self.training else graph.run(self._state, feeds)
        if all(isinstance(value, ort.OrtValue) for value in user_inputs):
            return outputs[0] if len(outputs) == 1 else tuple(outputs)
        arrays = [value.numpy() for value in outputs]
        return arrays[0] if len(arrays) == 1 else tuple(arrays)

    def train(self, mode: bool = True) -> Module:
        """Go over to training (or with False, to evaluation)."""
        self.training = mode
        return self

    def eval(self) -> Module:
        """Go over to evaluation: running statistics are used, dropout is off, nothing is accumulated."""
        return self.train(False)

    def lazy_reset_grad(self) -> None:
        """Let the next training step replace the accumulated gradient instead of adding to it."""
        self._reset = True

    def get_parameters_size(self, trainable_only: bool = True) -> int:
        """Number of elements of the trainable parameters, or of all."""
        return sum(int(np.prod(self._state.values[name].shape())) for name in self._names(trainable_only))

    def get_contiguous_parameters(self, trainable_only: bool = False) -> ort.OrtValue:
        """A copy of the parameters in one vector, in the order in which the model holds them."""
        arrays = [self._state.values[name].numpy().reshape(-1) for name in self._names(trainable_only)]
        return ort.OrtValue.ortvalue_from_numpy(np.concatenate(arrays))

    def copy_buffer_to_parameters(self, buffer: Any, trainable_only: bool = True) -> None:
        """Give the parameters the values of `buffer`, an OrtValue as `get_contiguous_parameters` gives it.

        Raises DataError where it has another size or type.
        """
        flat = np.asarray(buffer.numpy())
        size = self.get_parameters_size(trainable_only)
        if flat.shape != (size,):
            raise DataError(f"the buffer is {list(flat.shape)}; the parameters have {size} elements.")
        start = 0
        for name in self._names(trainable_only):
            shape = self._state.values[name].shape()
            end = start + int(np.prod(shape))
            self._state.assign(name, flat[start:end].reshape(shape))
            start = end

    def export_model_for_inferencing(
        self, inference_model_uri: str | os.PathLike[str], graph_output_names: Sequence[str]
    ) -> None:
        """Write the model as it is now, up to these values, for ONNX Runtime to infer with.

        Raises UsageError without an evaluation model or for a value it has not, ModelError where the file
        can't be written.
        """
        if self._eval is None:
            raise UsageError(_NO_EVALUATION, hint=_GIVE_EVALUATION)
        from cnnc.ort_training.api.inference import write_inference_model

        state = {name: value.numpy() for name, value in self._state.values.items()}
        write_inference_model(self._eval.path, state, graph_output_names, Path(inference_model_uri))

    def input_names(self) -> list[str]:
        """Names of what a call takes, in its order."""
        return self._user_inputs(self._current())

    def output_names(self) -> list[str]:
        """Names of what a call returns, in its order: first the loss."""
        return self._current().results

    def open_graph(self, uri: str | os.PathLike[str]) -> Graph:
        """A session on the module's device, with its options."""
        return Graph(Path(uri), self._provider, self._options)

    def _current(self) -> Graph:
        if self.training:
            return self._train
        if self._eval is None:
            raise UsageError(_NO_EVALUATION, hint=_GIVE_EVALUATION)
        return self._eval

    def _user_inputs(self, graph: Graph) -> list[str]:
        return [name for name in graph.inputs if name not in self._state.values and name not in _SCALARS]

    def _names(self, trainable_only: bool) -> Sequence[str]:
        return self._state.trainable if trainable_only else self._state.parameters

    def _train_step(self, feeds: dict[str, ort.OrtValue]) -> list[ort.OrtValue]:
        """Run the training model and accumulate its gradient; the state stays as it was where that fails."""
        scalars = {"seed": 0, "step": self._state.calls}
        for name in _SCALARS:
            if name in self._train.inputs:
                feeds[name] = ort.OrtValue.ortvalue_from_numpy(np.array(scalars[name], np.int64))
        batch = np.empty_like(self._gradient) if self._scratch is None else self._scratch
        outputs = self._train.run(self._state, feeds, {GRADIENT: batch})
        if self._reset:
            self._scratch, self._gradient = self._gradient, batch
            self._state.gradient = batch
        else:
            self._gradient += batch
        self._state.calls += 1
        self._reset = False
        return outputs


_NO_EVALUATION = "the module has no evaluation model."
_GIVE_EVALUATION = "Give it one: Module(train_model_uri, state, eval_model_uri)."


def _check_labels(labels: Array, classes: int) -> None:
    """Raise DataError for a label that is no class: the loss would leave it out without a word."""
    wrong = labels[(labels < 0) | (labels >= classes)]
    if wrong.size:
        raise DataError(f"labels go from 0 to {classes - 1}; these have {wrong.flat[0]}.")


def _plain(value: Array) -> Array:
    """An array that lies in one piece, its number of axes kept."""
    return np.ascontiguousarray(value).reshape(np.shape(value))
