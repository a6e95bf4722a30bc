"""Inference with any model file."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from cnnc.bundle import Array
from cnnc.runtime.provenance import explain
from cnnc.runtime.providers import Provider, choose, cpu_threads, open_session
from cnnc.runtime.session.specs import spec_of


class InferSession:
    """An inference model (infer.onnx, an exported one, or any other): a batch of inputs to outputs.

    `inputs` and `outputs` are as the file declares them (a dimension without a name is ``"?"``), `metadata`
    its ``metadata_props``. `stop_spinning` is for a session that lives beside others.
    """

    def __init__(
        self,
        model: Path | bytes,
        device: str | Provider = "auto",
        threads: int | None = None,
        *,
        stop_spinning: bool = False,
    ) -> None:
        self.provider = device if isinstance(device, Provider) else choose(device)
        self._session = open_session(
            model, self.provider, threads or cpu_threads(), stop_spinning=stop_spinning
        )
        self.inputs = tuple(spec_of(value) for value in self._session.get_inputs())
        self.outputs = tuple(spec_of(value) for value in self._session.get_outputs())
        self.metadata: dict[str, str] = self._session.get_modelmeta().custom_metadata_map

    def __call__(self, images: Array) -> Array:
        """The model's first output for `images`. Raises ModelError where ONNX Runtime fails."""
        return self.all(images)[0]

    def all(self, images: Array) -> list[Array]:
        """Every output for `images`, in the file's order. Raises ModelError where ONNX Runtime fails."""
        try:
            return [np.asarray(output) for output in self._session.run(None, {self.inputs[0].name: images})]
        except Exception as error:
            raise explain(error) from error
