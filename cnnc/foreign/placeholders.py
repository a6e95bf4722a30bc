"""Scales of 1 and biases of 0 that stand in a graph only because InstanceNormalization asks for them.

Exporters write group normalisation as an InstanceNormalization of the groups, with the scale and bias of the
channels behind it, and instance normalisation without scale and bias with ones and zeros. To train those
would give the network parameters that its source has not.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from onnx import GraphProto, NodeProto, helper, numpy_helper

from cnnc.foreign.parameters import tensor_dims
from cnnc.foreign.reading import Foreign
from cnnc.foreign.slots import SLOTS


def fix_placeholders(foreign: Foreign) -> Foreign:
    """The model with such scales and biases as constants that no parameter is made of.

    They are known by a Mul with a tensor of the model's own behind the node, or by being written in Constant
    nodes while the model's weights are not.
    """
    nodes = [node for node in foreign.graph.node if _is_neutral(foreign, node)]
    if not nodes:
        return foreign
    weights = {
        name
        for node in foreign.graph.node
        for kind, name in zip(SLOTS.get(node.op_type, ()), node.input, strict=False)
        if kind == "weight"
    }
    in_nodes = foreign.literals if foreign.literals.isdisjoint(weights) else frozenset()
    idle = {
        node.output[0]
        for node in nodes
        if in_nodes.issuperset(node.input[1:]) or _is_scaled_behind(foreign, node)
    }
    graph, dims = GraphProto(), tensor_dims(foreign.graph)
    graph.CopyFrom(foreign.graph)
    for node in graph.node:
        if node.output[0] in idle:
            dtype = helper.tensor_dtype_to_np_dtype(graph.input[0].type.tensor_type.elem_type)
            for index, number in ((1, 1.0), (2, 0.0)):
                name = f"{node.output[0]}/{('scale', 'bias')[index - 1]}"
                array = np.full(dims[node.input[index]], number, dtype)
                graph.initializer.append(numpy_helper.from_array(array, name))
                node.input[index] = name
    return replace(foreign, graph=graph)


def _is_neutral(foreign: Foreign, node: NodeProto) -> bool:
    """Whether it is an InstanceNormalization with a scale of ones and a bias of zeros."""
    if node.op_type != "InstanceNormalization":
        return False
    return all(_is_filled(foreign, name, number) for name, number in zip(node.input[1:], (1, 0), strict=True))


def _is_filled(foreign: Foreign, name: str, number: float) -> bool:
    """Whether every number of a tensor is `number`."""
    if name in foreign.drawn:
        return bool(foreign.drawn[name].get("value") == number)
    small = [numpy_helper.to_array(t) for t in foreign.graph.initializer if t.name == name]
    array = foreign.arrays.get(name, small[0] if small else None)
    return array is not None and bool(np.all(array == number))


def _is_scaled_behind(foreign: Foreign, node: NodeProto) -> bool:
    """Whether a tensor of the model's own scales what the node gives, perhaps behind a Reshape."""
    own = foreign.stored | foreign.arrays.keys() | foreign.drawn.keys()
    for reader in _readers(foreign.graph, node):
        behind = [*_readers(foreign.graph, reader)] if reader.op_type == "Reshape" else [reader]
        if any(each.op_type == "Mul" and own.intersection(each.input) for each in behind):
            return True
    return False


def _readers(graph: GraphProto, node: NodeProto) -> Iterator[NodeProto]:
    return (reader for reader in graph.node if node.output[0] in reader.input)
