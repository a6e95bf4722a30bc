"""Copying one graph into another, node by node, with some nodes rewritten on the way."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import onnx_ir as ir

from cnnc.ir.builder import Builder
from cnnc.ir.types import type_of

Rewrite = Callable[[Builder, ir.Node, Sequence[ir.Value | None]], Sequence[ir.Value]]
"""From a source node and its inputs in the new graph to its outputs in the new graph."""


def begun_like(source: ir.Graph) -> Builder:
    """A builder of a graph with nothing in it yet, but the name and the opsets of another."""
    opsets, name = dict(source.opset_imports), source.name or "step"
    return Builder(ir.Graph([], [], nodes=[], opset_imports=opsets, name=name))


def holds_graph(node: ir.Node) -> bool:
    """Whether a node, such as a Loop, has a graph of its own."""
    return any(attribute.type == ir.AttributeType.GRAPH for attribute in node.attributes.values())


def transcribe(
    source: ir.Graph,
    builder: Builder,
    bindings: Mapping[ir.Value, ir.Value],
    rewrites: Mapping[str, Rewrite] | None = None,
) -> dict[ir.Value, ir.Value]:
    """Append `source`'s nodes to the builder's graph and return where each of its values now is.

    `bindings` says what stands for the source's inputs; `rewrites` maps an op type to what replaces it.
    Names, types and metadata are kept.
    """
    values = dict(bindings)
    for node in source:
        inputs = [None if value is None else values[value] for value in node.inputs]
        if rewrites and node.op_type in rewrites:
            outputs = rewrites[node.op_type](builder, node, inputs)
        else:
            outputs = copy_node(builder, node, inputs)
        values.update(zip(node.outputs, outputs, strict=False))
    return values


def copy_node(builder: Builder, node: ir.Node, inputs: Sequence[ir.Value | None]) -> Sequence[ir.Value]:
    """Append a copy of `node` that reads `inputs`; return its outputs."""
    outputs = []
    for value in node.outputs:
        copy = ir.Value(
            name=builder.unique(str(value.name)),
            type=value.type,
            shape=ir.Shape(type_of(value).dims),
            const_value=value.const_value,
        )
        outputs.append(copy)
    builder.graph.append(
        ir.Node(
            node.domain,
            node.op_type,
            inputs,
            node.attributes.values(),
            outputs=outputs,
            name=builder.unique(str(node.name)) if node.name != node.outputs[0].name else outputs[0].name,
            metadata_props=dict(node.metadata_props),
        )
    )
    return outputs
