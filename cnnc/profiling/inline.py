"""A graph without functions whose nodes all have names of their own, as ONNX Runtime's profiler shows them.

ONNX Runtime would inline the functions by itself, but name the nodes after the function, not after the call.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import onnx

from cnnc.names import unique

Key = tuple[str, str]
"""A function's domain and name."""


def inlined(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same model with each call of a model-local function replaced by the function's nodes.

    The nodes of a call ``grad/conv1/weight`` are named ``grad/conv1/weight/MatMul`` and so on, and keep its
    metadata. A node without a name gets one from its operator.
    """
    result = onnx.ModelProto()
    result.CopyFrom(model)
    del result.functions[:], result.graph.node[:]
    functions = {(function.domain, function.name): function for function in model.functions}
    taken = {node.name for node in model.graph.node if node.name}
    result.graph.node.extend(_inlined(model.graph.node, functions, taken))
    _import_opsets(model, result)
    return result


def all_nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    """The nodes of a graph, each followed by those of the graphs inside it."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                yield from all_nodes(inner)


def _inlined(
    nodes: Iterable[onnx.NodeProto], functions: Mapping[Key, onnx.FunctionProto], taken: set[str]
) -> list[onnx.NodeProto]:
    found = []
    pending = list(nodes)[::-1]
    while pending:
        node = pending.pop()
        function = functions.get((node.domain, node.op_type))
        if function is not None:
            pending.extend(reversed(_nodes(node, function)))
            continue
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        if not copy.name:
            copy.name = unique(node.op_type, taken)
        for attribute in copy.attribute:
            for graph in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
                inner = _inlined(graph.node, functions, taken)
                del graph.node[:]
                graph.node.extend(inner)
        found.append(copy)
    return found


def _nodes(call: onnx.NodeProto, function: onnx.FunctionProto) -> list[onnx.NodeProto]:
    """The function's nodes, with the call's values in place of formal ones and names under the call's."""
    given = [*call.input, *[""] * (len(function.input) - len(call.input))]
    values = dict(zip(function.input, given, strict=True))
    values |= {formal: actual for formal, actual in zip(function.output, call.output, strict=False) if actual}
    attributes = {attribute.name: attribute for attribute in (*function.attribute_proto, *call.attribute)}
    nodes = []
    for index, inner in enumerate(function.node):
        node = onnx.NodeProto()
        node.CopyFrom(inner)
        node.name = f"{call.name}/{inner.name or f'{inner.op_type}_{index}'}"
        _rename(node, values, call.name)
        _resolve(node, attributes)
        node.metadata_props.extend(call.metadata_props)
        nodes.append(node)
    return nodes


def _rename(node: onnx.NodeProto, values: dict[str, str], prefix: str) -> None:
    def name(value: str) -> str:
        return values.get(value, f"{prefix}//{value}") if value else value

    node.input[:] = map(name, node.input)
    node.output[:] = map(name, node.output)
    for attribute in node.attribute:
        for graph in (attribute.g, *attribute.graphs):
            for inner in graph.node:
                _rename(inner, values, prefix)
            for info in (*graph.input, *graph.output):
                info.name = name(info.name)


def _resolve(node: onnx.NodeProto, attributes: dict[str, onnx.AttributeProto]) -> None:
    """Attributes that refer to the call's become those; one that the call leaves out is left out."""
    kept = []
    for attribute in node.attribute:
        if attribute.ref_attr_name:
            given = attributes.get(attribute.ref_attr_name)
            if given is None:
                continue
            name = attribute.name
            attribute.CopyFrom(given)
            attribute.name = name
        kept.append(attribute)
    if len(kept) < len(node.attribute):
        copies = [onnx.AttributeProto.FromString(attribute.SerializeToString()) for attribute in kept]
        del node.attribute[:]
        node.attribute.extend(copies)


def _import_opsets(model: onnx.ModelProto, result: onnx.ModelProto) -> None:
    """Opsets that only a function imported."""
    known = {entry.domain for entry in result.opset_import}
    for function in model.functions:
        for entry in function.opset_import:
            if entry.domain not in known:
                result.opset_import.add().CopyFrom(entry)
                known.add(entry.domain)
