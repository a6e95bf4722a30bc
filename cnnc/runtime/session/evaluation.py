"""The evaluation of a state."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnxruntime as ort

from cnnc.bundle import Array, Bundle
from cnnc.runtime.provenance import explain
from cnnc.runtime.providers import Provider, choose, cpu_threads, open_session
from cnnc.runtime.session.bound import Outputs, Sums


class EvalSession:
    """eval.onnx: the sums of the metrics over batches, for parameters and buffers given from outside.

    Its threads give their cores back between batches, so it may live beside a `StepSession`.
    """

    def __init__(self, bundle: Bundle, device: str | Provider = "auto", threads: int | None = None) -> None:
        self.bundle = bundle
        self.provider = device if isinstance(device, Provider) else choose(device)
        self._session = open_session(
            bundle.graph("eval.onnx"), self.provider, threads or cpu_threads(), stop_spinning=True
        )
        self._outputs = Outputs(bundle, self._session)
        self._binding = self._session.io_binding()
        self._outputs.bind(self._binding)
        inputs = {value.name for value in self._session.get_inputs()}
        self._names = [entry.name for entry in bundle.manifest.state if entry.name in inputs]
        self._batch = bundle.manifest.batch_names

    def use(self, state: Mapping[str, Array] | Mapping[str, ort.OrtValue]) -> None:
        """Evaluate with this state from now on; values of a `StepSession` are read where they are."""
        for name in self._names:
            value = state[name]
            if not isinstance(value, ort.OrtValue):
                value = ort.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(value).reshape(value.shape))
            self._binding.bind_ortvalue_input(name, value)

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
