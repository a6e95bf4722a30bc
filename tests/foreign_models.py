"""Running what the compiler made of foreign models, and making such models."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

from cnnc.bundle import NEXT
from cnnc.compiler import Compiled
from cnnc.foreign.reading import Foreign
from cnnc.opset import IR_VERSION, OPSET

Arrays = dict[str, Any]


def session(model: bytes) -> ort.InferenceSession:
    """A model on ONNX Runtime, one thread."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def trainer(compiled: Compiled) -> Callable[[Mapping[str, Any], Any, Any], tuple[Arrays, Arrays]]:
    """A function from state, image and target to a step's outputs and the next state."""
    train, manifest = session(compiled.graphs["train.onnx"]), compiled.manifest
    names = [output.name for output in train.get_outputs()]
    fixed = {"lr_scale": np.array(1.0, np.float32), "seed": np.array(0)}

    def step(state: Mapping[str, Any], image: Any, target: Any) -> tuple[Arrays, Arrays]:
        feeds = {**fixed, **state, manifest.input.name: image, manifest.target.name: target}
        found = train.run(None, {value.name: feeds[value.name] for value in train.get_inputs()})
        outputs = dict(zip(names, found, strict=True))
        return outputs, {n.removeprefix(NEXT): v for n, v in outputs.items() if n.startswith(NEXT)}

    return step


def inference(compiled: Compiled) -> Callable[[Any], Any]:
    """infer.onnx as a function."""
    infer, name = session(compiled.graphs["infer.onnx"]), compiled.manifest.input.name
    return lambda image: infer.run(None, {name: image})[0]


def weight(name: str, *dims: int) -> onnx.TensorProto:
    """A float32 initializer with fixed random values."""
    values = np.random.default_rng(len(name)).standard_normal(dims) * 0.3
    return numpy_helper.from_array(values.astype(np.float32), name)


def model(
    nodes: Sequence[onnx.NodeProto],
    tensors: Sequence[onnx.TensorProto] = (),
    *,
    shape: Sequence[int | str] = ("N", 3, 8, 8),
    output: str = "y",
    opset: int = 18,
    dtype: int = TensorProto.FLOAT,
    functions: Sequence[onnx.FunctionProto] = (),
    domains: Sequence[str] = (),
) -> onnx.ModelProto:
    """A model with the input `x`; what it gives is not declared but its name."""
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info("x", dtype, list(shape))],
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, None)],
        tensors,
    )
    imports = [helper.make_opsetid("", opset), *(helper.make_opsetid(name, 1) for name in domains)]
    return helper.make_model(graph, opset_imports=imports, functions=functions, ir_version=8)


def classifier(**given: Any) -> onnx.ModelProto:
    """A convolution, a ReLU, a global pool and a dense layer."""
    nodes = [
        helper.make_node("Conv", ["x", "conv.weight", "conv.bias"], ["c"], "conv", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c"], ["r"], "relu"),
        helper.make_node("GlobalAveragePool", ["r"], ["g"], "pool"),
        helper.make_node("Flatten", ["g"], ["f"], "flatten"),
        helper.make_node("Gemm", ["f", "fc.weight", "fc.bias"], ["y"], "fc", transB=1),
    ]
    tensors = [weight("conv.weight", 4, 3, 3, 3), weight("conv.bias", 4)]
    return model(nodes, [*tensors, weight("fc.weight", 5, 4), weight("fc.bias", 5)], **given)


def save(proto: onnx.ModelProto, path: Path) -> Path:
    """Write a model as it is: neither checked nor completed."""
    path.write_bytes(proto.SerializeToString())
    return path


def runnable(foreign: Foreign) -> bytes:
    """The normalised graph, its tensors in it."""
    proto = helper.make_model(
        foreign.graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION
    )
    onnx.checker.check_model(proto, full_check=True)
    tensors = dict(foreign.arrays)
    for value in proto.graph.input[1:]:
        if value.name in foreign.drawn:
            dims = [d.dim_value for d in value.type.tensor_type.shape.dim]
            tensors[value.name] = np.full(dims, foreign.drawn[value.name]["value"], np.float32)
    proto.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in tensors.items())
    return bytes(proto.SerializeToString())
