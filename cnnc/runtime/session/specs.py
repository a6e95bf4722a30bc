"""What a session says of its inputs and outputs."""

from __future__ import annotations

import onnxruntime as ort

from cnnc.bundle import TensorSpec


def spec_of(value: ort.NodeArg) -> TensorSpec:
    """An input or output of a session as the file declares it; a dimension without a name is ``"?"``."""
    shape = tuple("?" if size is None else size for size in value.shape)
    return TensorSpec(value.name, dtype_of(value.type), shape)


def dtype_of(kind: str) -> str:
    """NumPy's name of an ONNX Runtime tensor type such as ``tensor(float)``."""
    name = kind.removeprefix("tensor(").removesuffix(")")
    return {"float": "float32", "double": "float64"}.get(name, name)
