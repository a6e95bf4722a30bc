"""A graph whose state is part of it: ONNX Runtime folds constants, and picks its forms by them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import onnxruntime as ort

from cnnc.bundle import Array
from cnnc.runtime.providers import Provider, open_session, session_options


def with_constants(
    path: Path, state: Mapping[str, Array], provider: Provider, threads: int
) -> ort.InferenceSession:
    """A session of a graph with those of its inputs that `state` names as constants.

    Arrays are read where they lie, and must live, and not change, while the session is used. Its idle threads
    give their cores back.
    """
    import onnx  # only what evaluates many batches pays for this import

    model = onnx.load(path)
    inputs = {value.name: value for value in model.graph.input}
    names = [name for name in inputs if name in state]
    del model.graph.input[:]
    model.graph.input.extend(value for name, value in inputs.items() if name not in state)
    for name in names:
        tensor = model.graph.initializer.add()
        tensor.name, tensor.data_type = name, inputs[name].type.tensor_type.elem_type
        tensor.dims.extend(state[name].shape)
        tensor.data_location = onnx.TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value="state")  # no file: the session is given the values
    options = session_options(provider, threads, stop_spinning=True)
    options.add_external_initializers(
        names, [ort.OrtValue.ortvalue_from_numpy(state[name]) for name in names]
    )
    return open_session(model.SerializeToString(), provider, threads, options=options)
