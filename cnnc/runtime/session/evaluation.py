"""The evaluation of a state."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnxruntime as ort

from cnnc.bundle import Array, Bundle
from cnnc.runtime.provenance import explain
from cnnc.runtime.providers import Provider, choose, cpu_threads, open_session
from cnnc.runtime.session.bound import Outputs, Sums
from cnnc.runtime.session.constants import with_constants

MANY = 16
"""Batches from which on it pays to make a state part of the graph."""
State = Mapping[str, Array] | Mapping[str, ort.OrtValue]
"""The values of a state by name, in the host's memory."""


class EvalSession:
    """eval.onnx: the sums of the metrics over batches, for parameters and buffers given from outside.

    Its threads give their cores back between batches, so it may live beside a `StepSession`.
    """

    def __init__(self, bundle: Bundle, device: str | Provider = "auto", threads: int | None = None) -> None:
        self.bundle = bundle
        self.provider = device if isinstance(device, Provider) else choose(device)
        self._threads = threads or cpu_threads()
        self._plain = self._session = open_session(
            bundle.graph("eval.onnx"), self.provider, self._threads, stop_spinning=True
        )
        self._outputs = Outputs(bundle, self._session)
        inputs = {value.name for value in self._session.get_inputs()}
        self._names = [entry.name for entry in bundle.manifest.state if entry.name in inputs]
        self._batch = bundle.manifest.batch_names
        self._bind(self._session)

    def use(self, state: State, *, batches: int | None = None) -> None:
        """Evaluate with this state from now on; values of a `StepSession` are read where they are.

        `batches` is how many are to come, where that is known: for `MANY` the state becomes part of the graph
        on the CPU, which takes a moment, and then a batch about half the time. Metrics differ by rounding.
        """
        self._bind(self._plain)  # a session with another state can go before the next one comes
        if (batches or 0) >= MANY and self.provider.device == "cpu":
            self._constants = {name: _array(state[name]) for name in self._names}
            graph = self.bundle.graph("eval.onnx")
            self._bind(with_constants(graph, self._constants, self.provider, self._threads))
            return
        for name in self._names:
            value = state[name]
            if not isinstance(value, ort.OrtValue):
                value = ort.OrtValue.ortvalue_from_numpy(_array(value))
            self._binding.bind_ortvalue_input(name, value)

    def _bind(self, session: ort.InferenceSession) -> None:
        self._session, self._binding = session, session.io_binding()
        self._outputs.bind(self._binding)

    def sums(self, images: Array, *targets: Array) -> Sums:
        """The sums of the metrics over one batch of any size, given as to `StepSession.step`.

        Raises ModelError where ONNX Runtime fails.
        """
        try:
            for name, array in zip(self._batch, (images, *targets), strict=True):
                self._binding.bind_ortvalue_input(name, ort.OrtValue.ortvalue_from_numpy(array))
            self._session.run_with_iobinding(self._binding)
        except Exception as error:
            raise explain(error, self.bundle, "eval.onnx") from error
        return self._outputs.sums()


def _array(value: Array | ort.OrtValue) -> Array:
    """A value in one piece, in the host's memory; ``ascontiguousarray`` alone makes a vector of a scalar."""
    array = np.asarray(value.numpy() if isinstance(value, ort.OrtValue) else value)
    return np.ascontiguousarray(array).reshape(array.shape)
