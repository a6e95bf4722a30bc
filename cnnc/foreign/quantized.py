"""Quantised graphs: pairs of QuantizeLinear and DequantizeLinear, refused or taken away."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, external_data_helper, numpy_helper

from cnnc.errors import UnsupportedError
from cnnc.foreign.protos import attributes, label

_INTEGER = {
    "QLinearConv", "QLinearMatMul", "ConvInteger", "MatMulInteger", "DynamicQuantizeLinear",
}  # fmt: skip


def refuse(model: ModelProto) -> None:
    """Raise UnsupportedError where a graph computes with quantised values."""
    for node in model.graph.node:
        if node.op_type in _INTEGER:
            raise _integer(node)
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            raise UnsupportedError(
                f"the graph is quantised ({label(node)}): rounding has no gradient.",
                hint="Build from the float model, or say --dequantize to take the rounding away and "
                "fine-tune in float.",
            )


def remove(model: ModelProto, folder: Path) -> list[str]:
    """Take the pairs away, in place, and give integer weights their float values. Returns notes."""
    graph = model.graph
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    quantized = {node.output[0]: node for node in graph.node if node.op_type == "QuantizeLinear"}
    stands_for: dict[str, str] = {}
    kept = []
    count = 0
    for node in graph.node:
        if node.op_type in _INTEGER:
            raise _integer(node)
        for index, name in enumerate(node.input):
            node.input[index] = stands_for.get(name, name)
        if node.op_type == "QuantizeLinear":
            continue
        if node.op_type != "DequantizeLinear":
            kept.append(node)
            continue
        count += 1
        source = node.input[0]
        if source in quantized:
            stands_for[node.output[0]] = stands_for.get(
                quantized[source].input[0], quantized[source].input[0]
            )
        elif source in tensors:
            graph.initializer.append(_float(node, tensors, folder))
        else:
            raise UnsupportedError(f"{label(node)} dequantises what no QuantizeLinear gave.")
    for value in graph.output:
        if value.name in stands_for:
            raise UnsupportedError(f"the output '{value.name}' is a quantised value.")
    del graph.node[:]
    graph.node.extend(kept)
    return [f"{count} quantised values are floats again."] if count else []


def _float(node: NodeProto, tensors: dict[str, TensorProto], folder: Path) -> TensorProto:
    """(q - zero point) · scale, by channel where the scale is."""
    arrays = []
    for name in node.input:
        if name not in tensors:
            raise UnsupportedError(f"{label(node)} has a scale or zero point that is computed.")
        tensor = tensors[name]
        if tensor.data_location == TensorProto.EXTERNAL:
            external_data_helper.load_external_data_for_tensor(tensor, str(folder))
        arrays.append(numpy_helper.to_array(tensor))
    values, scale = arrays[0].astype(np.float64), arrays[1]
    axis = attributes(node).get("axis", 1)
    shape = [-1 if i == axis % max(values.ndim, 1) else 1 for i in range(values.ndim)] if scale.ndim else ()
    if attributes(node).get("block_size"):
        raise UnsupportedError(f"{label(node)} is quantised by blocks.")
    zero = arrays[2].astype(np.float64).reshape(shape) if len(arrays) > 2 else 0.0
    result = ((values - zero) * scale.astype(np.float64).reshape(shape)).astype(scale.dtype)
    return numpy_helper.from_array(result, node.output[0])


def _integer(node: NodeProto) -> UnsupportedError:
    return UnsupportedError(
        f"{label(node)} computes with integers, which have no gradient.",
        hint="Build from the float model.",
    )
