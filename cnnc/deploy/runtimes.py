"""The runtimes that `cnnc verify` compares: a new one is a class and a row of `RUNTIMES`."""

from __future__ import annotations

import importlib
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from importlib import metadata
from pathlib import Path
from typing import ClassVar

import numpy as np
import onnx
from onnx import TensorProto, helper, inliner

from cnnc.bundle import Array
from cnnc.errors import ProviderError
from cnnc.runtime.providers import Provider, choose, cpu_threads, open_session

Call = Callable[[Mapping[str, Array]], dict[str, Array]]
"""A loaded graph: from its inputs (and perhaps more, which it passes over) to its outputs, by name."""


class Runtime(ABC):
    """Something that executes ONNX graphs."""

    name: ClassVar[str]
    package: ClassVar[str]
    """The package that `pip install` brings it with, under the name it is imported by."""

    def absence(self) -> str:
        """Why it can't be used here and how to install it, in a sentence; empty where it can."""
        try:
            importlib.import_module(self.package)
        except (ImportError, OSError) as error:  # OSError: a library it needs
            return f"{error}; `pip install {self.package}` brings it."
        return ""

    def version(self) -> str:
        """The version of the package; empty where it doesn't say."""
        try:
            return metadata.version(self.package)
        except metadata.PackageNotFoundError:  # installed under another name, such as onnxruntime-gpu
            return str(getattr(importlib.import_module(self.package), "__version__", ""))

    @abstractmethod
    def load(self, model: onnx.ModelProto) -> Call:
        """Make `model` ready to run, for batches of any size. Raises whatever the runtime raises."""


class OnnxRuntime(Runtime):
    """ONNX Runtime on the CPU, the reference."""

    name, package = "ONNX Runtime", "onnxruntime"

    def provider(self) -> Provider:
        """Where it runs. Raises ProviderError."""
        return choose("cpu")

    def load(self, model: onnx.ModelProto) -> Call:
        """Takes functions as they are."""
        session = open_session(model.SerializeToString(), self.provider(), cpu_threads(), stop_spinning=True)
        inputs = [value.name for value in session.get_inputs()]
        outputs = [value.name for value in session.get_outputs()]
        return lambda feeds: dict(
            zip(outputs, session.run(None, {name: feeds[name] for name in inputs}), strict=True)
        )


class OnnxRuntimeCuda(OnnxRuntime):
    """ONNX Runtime on an NVIDIA GPU."""

    name = "ONNX Runtime, CUDA"

    def provider(self) -> Provider:
        """Where it runs. Raises ProviderError."""
        return choose("cuda")

    def absence(self) -> str:
        """As the provider tells it."""
        try:
            self.provider()
        except ProviderError as error:
            return f"{error.what} `pip install onnxruntime-gpu` in place of onnxruntime brings it."
        return ""


class Reference(Runtime):
    """onnx's own implementation in NumPy, which follows the standard's text; where it doesn't, ours."""

    name, package = "onnx reference", "onnx"

    def load(self, model: onnx.ModelProto) -> Call:
        """Takes functions as they are."""
        from onnx.reference import ReferenceEvaluator

        from cnnc.deploy.reference_operators import OPERATORS

        evaluator = ReferenceEvaluator(model, new_ops=[*OPERATORS])

        def call(feeds: Mapping[str, Array]) -> dict[str, Array]:
            with np.errstate(all="ignore"):
                values = evaluator.run(None, {name: feeds[name] for name in evaluator.input_names})
            return dict(zip(evaluator.output_names, map(np.asarray, values), strict=True))

        return call


class OpenVino(Runtime):
    """OpenVINO on the CPU. It knows no model-local functions, and computes int64 as int32."""

    name, package = "OpenVINO", "openvino"

    def load(self, model: onnx.ModelProto) -> Call:
        """Compiles the flat graph for float32: left alone, it takes bfloat16 on some processors."""
        import openvino

        core = openvino.Core()
        flat = inliner.inline_local_functions(model)
        compiled = core.compile_model(
            core.read_model(flat.SerializeToString()), "CPU", {"INFERENCE_PRECISION_HINT": "f32"}
        )
        inputs = [value.name for value in model.graph.input]
        outputs = [value.name for value in model.graph.output]

        def call(feeds: Mapping[str, Array]) -> dict[str, Array]:
            # NumPy has two dtypes called int64, and OpenVINO knows one of them.
            values = compiled({name: np.asarray(feeds[name], feeds[name].dtype.name) for name in inputs})
            return {name: np.array(values[name]) for name in outputs}

        return call


class Tract(Runtime):
    """tract, Sonos's runtime in Rust. It knows no functions and wants to know the size of the batch."""

    name, package = "tract", "tract"

    def load(self, model: onnx.ModelProto) -> Call:
        """Loads the flat graph anew for each call, with the sizes of its inputs."""
        flat = inliner.inline_local_functions(model)

        def call(feeds: Mapping[str, Array]) -> dict[str, Array]:
            import tract

            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder, "model.onnx")
                onnx.save(_for_tract(flat, feeds), path)
                runnable = tract.onnx().load(path).into_model().into_runnable()
            values = runnable.run([np.asarray(feeds[value.name]) for value in flat.graph.input])
            return {
                output.name: value.to_numpy().astype(
                    helper.tensor_dtype_to_np_dtype(output.type.tensor_type.elem_type)
                )
                for output, value in zip(flat.graph.output, values, strict=True)
            }

        return call


def _for_tract(model: onnx.ModelProto, feeds: Mapping[str, Array]) -> onnx.ModelProto:
    """`model` for inputs of these sizes, without what tract 0.23 stumbles over.

    Symbols in declared shapes don't unify with numbers. Nodes are renamed, since it names constants of its
    own after them (``conv1.bias``) and refuses duplicates. An int64 output that depends on a shape is of
    a type that its Python interface can't hand over, so integers leave as int32.
    """
    concrete = onnx.ModelProto()
    concrete.CopyFrom(model)
    graph = concrete.graph
    del graph.value_info[:]
    for value in graph.input:
        for dim, size in zip(value.type.tensor_type.shape.dim, feeds[value.name].shape, strict=True):
            dim.dim_value = size
    for index, node in enumerate(graph.node):
        node.name = f"node {index}"
    for output in graph.output:
        output.type.tensor_type.ClearField("shape")
        if output.type.tensor_type.elem_type == TensorProto.INT64:
            name = f"{output.name} as int32"
            graph.node.append(
                helper.make_node("Cast", [output.name], [name], f"node {name}", to=TensorProto.INT32)
            )
            output.name, output.type.tensor_type.elem_type = name, TensorProto.INT32
    return concrete


REFERENCE = OnnxRuntime()
RUNTIMES: tuple[Runtime, ...] = (REFERENCE, OnnxRuntimeCuda(), Reference(), OpenVino(), Tract())
