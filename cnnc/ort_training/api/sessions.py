"""A graph of the artifacts, run on the state that a training shares."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import onnxruntime as ort

from cnnc.bundle import GRADIENT, NEXT, Array
from cnnc.ort_training.api.training_state import TrainingState
from cnnc.ort_training.checkpoint_file import LABELS
from cnnc.runtime.provenance import explain
from cnnc.runtime.providers import Provider, cpu_threads, open_session


class Graph:
    """A session, and what it takes and gives by name.

    `results` are the outputs that are for the script; the others are the gradient and next values of state.
    `classes` is what labels, where the last input of the script holds them, must be less than, else 0.
    Raises BundleError for a file that can't be loaded.
    """

    def __init__(self, path: Path, provider: Provider, options: ort.SessionOptions | None) -> None:
        self.path = path
        self._session = open_session(path, provider, cpu_threads(), stop_spinning=True, options=options)
        self.inputs = {value.name: value for value in self._session.get_inputs()}
        self.outputs = [value.name for value in self._session.get_outputs()]
        self.classes = int(self._session.get_modelmeta().custom_metadata_map.get(LABELS, 0))
        self.results = [name for name in self.outputs if name != GRADIENT and not name.startswith(NEXT)]

    def run(
        self,
        state: TrainingState,
        feeds: Mapping[str, ort.OrtValue],
        landing: Mapping[str, Array] | None = None,
    ) -> list[ort.OrtValue]:
        """Run on `feeds` and, for every other input, the state; move the state on. Returns the results.

        Outputs that `landing` names are written to its arrays. Raises ModelError where ONNX Runtime fails:
        the state is then as it was.
        """
        held = [name for name in self.inputs if name not in feeds]
        following = [name.removeprefix(NEXT) for name in self.outputs if name.startswith(NEXT)]
        binding = self._session.io_binding()
        try:
            for name, value in feeds.items():
                binding.bind_ortvalue_input(name, value)
            for name in self.results:
                binding.bind_output(name, "cpu")
            for name, array in (landing or {}).items():
                binding.bind_ortvalue_output(name, ort.OrtValue.ortvalue_from_numpy(array))
            state.bind(binding, held, following)
            self._session.run_with_iobinding(binding)
        except Exception as error:  # ORT's exceptions have no common base
            raise explain(error, graph=self.path.name) from error
        state.advance(following)
        return list(binding.get_outputs()[: len(self.results)])
