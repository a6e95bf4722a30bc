"""Short words for what the child does with ONNX's own messages all the time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto

DOMAINS = ("", "ai.onnx")
"""The names of the standard domain."""


def attributes(node: NodeProto) -> dict[str, Any]:
    """Attribute values by name; texts as ``str``."""
    values = {item.name: onnx.helper.get_attribute_value(item) for item in node.attribute}
    return {name: value.decode() if isinstance(value, bytes) else value for name, value in values.items()}


def label(node: NodeProto) -> str:
    """How errors name a node: operator and name, or its output where it has no name."""
    return f"{node.op_type} '{node.name or next((name for name in node.output if name), '')}'"


def subgraphs(node: NodeProto) -> Iterator[GraphProto]:
    """The graphs in a node's attributes: bodies of If, Loop and Scan."""
    for item in node.attribute:
        if item.type == AttributeProto.GRAPH:
            yield item.g
        yield from item.graphs


def all_nodes(nodes: Any) -> Iterator[NodeProto]:
    """Nodes and those of their subgraphs, at any depth."""
    waiting = [iter(nodes)]
    while waiting:
        for node in waiting[-1]:
            yield node
            inner = [child for graph in subgraphs(node) for child in graph.node]
            if inner:
                waiting.append(iter(inner))
                break
        else:
            waiting.pop()


def all_tensors(model: ModelProto) -> Iterator[tuple[TensorProto, str]]:
    """Every tensor of a model and what it is, as errors name it."""
    graphs = [model.graph]
    nodes = [*all_nodes(model.graph.node)]
    for function in model.functions:
        nodes += all_nodes(function.node)
    for node in nodes:
        graphs += subgraphs(node)
        for item in node.attribute:
            for tensor in (*([item.t] if item.type == AttributeProto.TENSOR else ()), *item.tensors):
                yield tensor, f"attribute {item.name} of {label(node)}"
    for graph in graphs:
        for tensor in graph.initializer:
            yield tensor, f"initializer '{tensor.name}'"


def reads(node: NodeProto) -> Iterator[str]:
    """Names of what a node reads, in its subgraphs too."""
    for each in all_nodes([node]):
        yield from (name for name in each.input if name)
        for graph in subgraphs(each):
            yield from (value.name for value in graph.output)


def to_array(tensor: TensorProto) -> np.ndarray[Any, Any]:
    """A tensor's data; its size has been checked."""
    return np.asarray(onnx.numpy_helper.to_array(tensor))
