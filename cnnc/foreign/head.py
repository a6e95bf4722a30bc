"""The end of a foreign graph: its final activation goes into the loss."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from onnx import GraphProto, NodeProto

from cnnc.foreign.protos import attributes

ACTIVATIONS = {"Softmax": "softmax", "LogSoftmax": "softmax", "Sigmoid": "sigmoid"}
_RESHAPING = {"Flatten", "Reshape", "Squeeze", "Unsqueeze"}


@dataclass(frozen=True)
class Head:
    """The activation that a graph ends in, if any: its node, and those that only reshape after it."""

    activation: str
    node: NodeProto | None
    after: tuple[NodeProto, ...] = ()


def head_of(graph: GraphProto, output: int = 0) -> Head:
    """Find the final activation before an output of a normalised graph: ``softmax``, ``sigmoid`` or
    ``identity``.

    A softmax counts where it goes over the classes: axis 1, or the last axis of a matrix.
    """
    producers = {name: node for node in graph.node for name in node.output}
    readers = Counter(name for node in graph.node for name in node.input)
    ranks = {
        value.name: len(value.type.tensor_type.shape.dim) for value in (*graph.value_info, *graph.output)
    }
    name, after = graph.output[output].name, list[NodeProto]()
    while (node := producers.get(name)) is not None and readers[name] == min(len(after), 1):
        if node.op_type in ACTIVATIONS:
            activation, axis = ACTIVATIONS[node.op_type], attributes(node).get("axis", -1)
            if activation == "softmax" and axis % ranks[name] != 1:
                break
            return Head(activation, node, tuple(after))
        if node.op_type not in _RESHAPING:
            break
        after.append(node)
        name = node.input[0]
    return Head("identity", None)
