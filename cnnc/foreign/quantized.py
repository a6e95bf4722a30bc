"""Quantised graphs: pairs of QuantizeLinear and DequantizeLinear, refused or taken away."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, external_data_helper, helper, numpy_helper

from cnnc.errors import UnsupportedError
from cnnc.foreign.protos import attributes, label
from cnnc.foreign.structure import opset_of
from cnnc.foreign.world import Array

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
    """Take the pairs away, in place, and give integer weights their float values. Returns notes.

    A pair that begins at 0 cuts off negative numbers: quantisers leave out the Relu, or the Clip from 0, that
    stood before it. There a Clip to what the pair can hold stands in its place.
    """
    graph = model.graph
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    tensors |= {n.output[0]: n.attribute[0].t for n in graph.node if n.op_type == "Constant" and n.attribute}
    producers = {name: node for node in graph.node for name in node.output}
    outputs = {value.name for value in graph.output}
    stands_for: dict[str, str] = {}
    cut: dict[str, str] = {}
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
        source, result = node.input[0], node.output[0]
        before = producers.get(source)
        if before is not None and before.op_type == "QuantizeLinear":
            value = before.input[0]
            if source in cut:
                value = cut[source]
            elif (most := _most(before, tensors, folder)) is not None and not _is_rectified(
                value, producers, cut
            ):
                kept += _clip(value, most, result, opset_of(model))
                cut[source] = result
                continue
            if result in outputs:
                kept.append(helper.make_node("Identity", [value], [result], result))
            else:
                stands_for[result] = value
        elif source in tensors:
            graph.initializer.append(_float(node, tensors, folder))
        else:
            raise UnsupportedError(f"{label(node)} dequantises what no QuantizeLinear gave.")
    del graph.node[:]
    graph.node.extend(kept)
    notes = [f"{count} quantised values are floats again."] if count else []
    if cut:
        notes.append(
            f"{len(cut)} of them are cut off below 0 and at the most that they could hold, as before."
        )
    return notes


def _most(node: NodeProto, tensors: Mapping[str, TensorProto], folder: Path) -> Array | None:
    """The largest number that a QuantizeLinear can hold, where the least is 0; else None."""
    arrays = [_array(tensors[name], folder) for name in node.input[1:] if name in tensors]
    if len(arrays) < len(node.input) - 1 or arrays[0].size != 1:
        return None
    zero = arrays[1].reshape(-1)[0] if len(arrays) > 1 else np.uint8(0)
    if zero.dtype.kind not in "iu" or zero != np.iinfo(zero.dtype).min:
        return None
    held = int(np.iinfo(zero.dtype).max) - int(zero)
    return np.asarray(arrays[0].reshape(-1)[0] * held, arrays[0].dtype)


_KEEPING = {
    "AveragePool", "DequantizeLinear", "Dropout", "Flatten", "GlobalAveragePool", "GlobalMaxPool", "MaxPool",
    "QuantizeLinear", "Reshape", "Squeeze", "Transpose", "Unsqueeze",
}  # fmt: skip
"""Operators that give no negative number where they read none."""


def _is_rectified(name: str, producers: Mapping[str, NodeProto], cut: Collection[str]) -> bool:
    """Whether a value has no negative numbers as the graph stands, or comes straight from outside."""
    while name not in cut and (node := producers.get(name)) is not None:
        if node.op_type not in _KEEPING:
            return node.op_type in ("Abs", "Exp", "HardSigmoid", "Relu", "Sigmoid", "Softmax")
        name = node.input[0]
    return True


def _clip(value: str, most: Array, result: str, version: int) -> list[NodeProto]:
    """Between 0 and `most`; before opset 11 the bounds were attributes."""
    if version < 11:
        return [helper.make_node("Clip", [value], [result], result, min=0.0, max=float(most))]
    bounds = {f"{result}/least": most * 0, f"{result}/most": most}
    literals = [
        helper.make_node("Constant", [], [name], name, value=numpy_helper.from_array(np.asarray(bound), name))
        for name, bound in bounds.items()
    ]
    return [*literals, helper.make_node("Clip", [value, *bounds], [result], result)]


def _float(node: NodeProto, tensors: dict[str, TensorProto], folder: Path) -> TensorProto:
    """(q - zero point) · scale, by channel where the scale is."""
    arrays = []
    for name in node.input:
        if name not in tensors:
            raise UnsupportedError(f"{label(node)} has a scale or zero point that is computed.")
        arrays.append(_array(tensors[name], folder))
    values, scale = arrays[0].astype(np.float64), arrays[1]
    axis = attributes(node).get("axis", 1)
    shape = [-1 if i == axis % max(values.ndim, 1) else 1 for i in range(values.ndim)] if scale.ndim else ()
    if attributes(node).get("block_size"):
        raise UnsupportedError(f"{label(node)} is quantised by blocks.")
    zero = arrays[2].astype(np.float64).reshape(shape) if len(arrays) > 2 else 0.0
    result = ((values - zero) * scale.astype(np.float64).reshape(shape)).astype(scale.dtype)
    return numpy_helper.from_array(result, node.output[0])


def _array(tensor: TensorProto, folder: Path) -> Array:
    if tensor.data_location == TensorProto.EXTERNAL:
        external_data_helper.load_external_data_for_tensor(tensor, str(folder))
    return np.asarray(numpy_helper.to_array(tensor))


def _integer(node: NodeProto) -> UnsupportedError:
    return UnsupportedError(
        f"{label(node)} computes with integers, which have no gradient.",
        hint="Build from the float model.",
    )
