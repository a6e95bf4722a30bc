"""The graph of an exported model: trained weights in it, no batch normalisation, perhaps preprocessing."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper, version_converter

from cnnc import __version__
from cnnc.bundle import Preprocessing, merged
from cnnc.deploy.trained import Trained
from cnnc.errors import ModelError
from cnnc.opset import OPSET


def trained_model(trained: Trained) -> onnx.ModelProto:
    """The bundle's infer.onnx with the trained parameters and running statistics in it, adapters merged."""
    state = merged(trained.bundle.manifest, trained.state)
    model = onnx.load(trained.bundle.graph("infer.onnx"))
    for tensor in model.graph.initializer:
        if tensor.name in state:
            tensor.CopyFrom(numpy_helper.from_array(state[tensor.name], tensor.name))
    return model


def embed(graph: onnx.GraphProto, preprocessing: Preprocessing) -> None:
    """Make the graph's input uint8, scaled and normalised by nodes, as `cnnc.data.preprocess` does it."""
    image = graph.input[0]
    dtype = helper.tensor_dtype_to_np_dtype(image.type.tensor_type.elem_type)
    by_channel = (-1, *[1] * (len(image.type.tensor_type.shape.dim) - 2))
    steps: list[tuple[str, Any]] = [("Mul", np.asarray(preprocessing.scale, dtype))]
    steps += [
        (op, np.asarray(numbers, dtype).reshape(by_channel))
        for op, numbers in (("Sub", preprocessing.mean), ("Div", preprocessing.std))
        if numbers
    ]
    value = "preprocessing/cast"
    nodes = [
        helper.make_node(
            "Cast", [image.name], [value], "preprocessing/cast", to=image.type.tensor_type.elem_type
        )
    ]
    for op, numbers in steps:
        name = f"preprocessing/{op.lower()}"
        graph.initializer.append(numpy_helper.from_array(numbers, f"{name}/constant"))
        nodes.append(helper.make_node(op, [value, f"{name}/constant"], [name], name))
        value = name
    for node in graph.node:
        node.input[:] = [value if name == image.name else name for name in node.input]
    nodes += graph.node
    del graph.node[:]
    graph.node.extend(nodes)
    image.type.tensor_type.elem_type = TensorProto.UINT8


def finished(model: onnx.ModelProto, name: str, opset: int, metadata: dict[str, str]) -> onnx.ModelProto:
    """The model in the wanted opset, named, with its metadata, and checked. Raises ModelError.

    Its IR version is the lowest that has the opset; what nodes say about where they come from, which only
    later versions can hold, is dropped.
    """
    for node in model.graph.node:
        del node.metadata_props[:]
    del model.graph.value_info[:]
    if opset != OPSET:
        model = _converted(model, opset)
    model.ir_version = helper.find_min_ir_version_for(list(model.opset_import))
    model.producer_name, model.producer_version, model.graph.name = "cnnc", __version__, name
    del model.metadata_props[:]
    helper.set_model_props(model, metadata)
    model = onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True)
    onnx.checker.check_model(model, full_check=True)
    return model


def _converted(model: onnx.ModelProto, opset: int) -> onnx.ModelProto:
    try:
        converted = version_converter.convert_version(model, opset)
        onnx.checker.check_model(converted, full_check=True)
        return converted
    except Exception as error:  # RuntimeError for most, and whatever the converter's adapters raise
        raise ModelError(
            f"the model can't be converted from opset {OPSET} to {opset}: {_reason(error)}.",
            hint=f"Leave --opset out, or take one nearer to {OPSET}.",
        ) from error


def _reason(error: Exception) -> str:
    """The converter's own words, without the place in its source."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    words = lines[0].rpartition("failed: ")[2].removeprefix("Warning: ")
    return words.replace("$", "").rstrip(".")
