"""The graph inside a node written out: its nodes among those of the graph around it, under new names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from onnx import GraphProto, NodeProto, TensorProto

from cnnc.errors import UnsupportedError
from cnnc.foreign.protos import subgraphs

if TYPE_CHECKING:
    from cnnc.foreign.walk import Walk

MOST_NODES = 20_000
"""Nodes of inner graphs, counted each time that they are written out."""


def inline(walk: Walk, graph: GraphProto, given: Mapping[str, str]) -> list[str]:
    """Append a graph's nodes under new names and return what its outputs are called. Raises UnsupportedError.

    `given` are the names of its inputs' values. Copies of a graph share its tensors.
    """
    walk.written += len(graph.node)
    if walk.written > MOST_NODES:
        raise UnsupportedError(f"its control flow is more than {MOST_NODES:,} nodes, written out.")
    names = dict(given)
    for tensor in graph.initializer:
        names[tensor.name] = walk.inner_tensor(tensor)
    for node in graph.node:
        if (literal := _literal(node)) is not None:
            names[literal.name] = walk.inner_tensor(literal)
            continue
        copy = renamed(node, names)
        for place, output in enumerate(node.output):
            if output:
                copy.output[place] = names[output] = walk.fresh(output)
        copy.name = next(filter(None, copy.output), copy.name)
        walk.visit(copy)
    return [walk.alias(names.get(value.name, value.name)) for value in graph.output]


def _literal(node: NodeProto) -> TensorProto | None:
    """The tensor of a Constant node, called as its output."""
    if node.op_type != "Constant" or len(node.attribute) != 1 or not node.attribute[0].HasField("t"):
        return None
    tensor = TensorProto()
    tensor.CopyFrom(node.attribute[0].t)
    tensor.name = node.output[0]
    return tensor


def renamed(node: NodeProto, names: Mapping[str, str]) -> NodeProto:
    """A copy that reads other names, in its own graphs, too."""
    copy = NodeProto()
    copy.CopyFrom(node)
    for place, name in enumerate(copy.input):
        copy.input[place] = names.get(name, name)
    for graph in subgraphs(copy):
        _rename_within(graph, names)
    return copy


def _rename_within(graph: GraphProto, names: Mapping[str, str]) -> None:
    own = {value.name for value in (*graph.input, *graph.initializer)}
    own |= {output for node in graph.node for output in node.output}
    outer = {name: new for name, new in names.items() if name not in own}
    for node in graph.node:
        node.CopyFrom(renamed(node, outer))
    for value in graph.output:
        value.name = outer.get(value.name, value.name)
