"""The graph inside a node written out: its nodes among those of the graph around it, under new names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from onnx import GraphProto, NodeProto

from cnnc.errors import UnsupportedError
from cnnc.foreign.protos import subgraphs

if TYPE_CHECKING:
    from cnnc.foreign.walk import Walk

MOST_NODES = 20_000
"""Nodes of inner graphs, counted each time that they are written out."""


def inline(walk: Walk, graph: GraphProto, given: Mapping[str, str]) -> list[str]:
    """Append a graph's nodes under new names and return what its outputs are called. Raises UnsupportedError.

    `given` are the names of its inputs' values. Its tensors keep their names: copies share them.
    """
    walk.written += len(graph.node)
    if walk.written > MOST_NODES:
        raise UnsupportedError(f"its control flow is more than {MOST_NODES:,} nodes, written out.")
    names = dict(given)
    for tensor in graph.initializer:
        walk.inner_tensor(tensor)
    for node in graph.node:
        copy = renamed(node, names)
        for place, output in enumerate(node.output):
            if output:
                copy.output[place] = names[output] = walk.fresh(output)
        copy.name = next(filter(None, copy.output), copy.name)
        walk.visit(copy)
    return [walk.alias(names.get(value.name, value.name)) for value in graph.output]


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
