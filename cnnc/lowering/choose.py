"""The lowering pass: every gradient op of a graph becomes a call of a model-local function."""

from __future__ import annotations

from collections.abc import Mapping

import onnx_ir as ir

from cnnc.bundle import FunctionSpec
from cnnc.errors import UnsupportedError
from cnnc.ir import GRAD_OPS, Builder, type_of
from cnnc.lowering.body import BODIES, Body, Call
from cnnc.opset import GRAD_DOMAIN, OPSET


def lower(
    graph: ir.Graph, choices: Mapping[str, str] | None = None
) -> tuple[list[ir.Function], list[FunctionSpec]]:
    """Give each gradient op of `graph` a body, as a function that its node calls.

    `choices` maps a node's name to the name of the body it shall have; any other node gets the first legal
    one. Nodes whose bodies are alike share one function: the first of an op is called after the op, further
    ones ``Op_2``, ``Op_3``, … (onnx's ReferenceEvaluator ignores overloads). Raises UnsupportedError where no
    body is legal.
    """
    choices = choices or {}
    functions: dict[bytes, ir.Function] = {}
    specs = []
    for node in graph.all_nodes():
        if node.domain != GRAD_DOMAIN:
            continue
        op = node.op_type
        chosen = _choose(node, choices.get(str(node.name)))
        function = _function(node, chosen)
        key = ir.serde.serialize_function(function).SerializeToString(deterministic=True)
        if key not in functions:
            count = sum(1 for other in functions.values() if other.metadata_props["cnnc.op"] == op)
            function.name = op if count == 0 else f"{op}_{count + 1}"
            functions[key] = function
        node.op_type = functions[key].name
        node.metadata_props["cnnc.body"] = chosen.name
        specs.append(FunctionSpec(str(node.name), op, chosen.name, node.op_type))
    return list(functions.values()), specs


def legal_bodies(node: ir.Node) -> list[Body]:
    """The bodies that may compute this gradient op, the portable default first."""
    call = Call(node, _builder())
    return sorted((b for b in BODIES[node.op_type] if b.legal(call)), key=lambda b: not b.exact)


def _choose(node: ir.Node, wish: str | None) -> Body:
    legal = legal_bodies(node)
    if wish is not None:
        legal = [b for b in legal if b.name == wish]
    if not legal:
        types = ", ".join("-" if v is None else str(type_of(v)) for v in node.inputs)
        raise UnsupportedError(
            f"no body of {node.op_type} is legal for node '{node.name}' ({types})"
            + (f" under the name '{wish}'." if wish else "."),
            where=node.metadata_props.get("cnnc.where", ""),
            hint=f"Bodies of it: {', '.join(b.name for b in BODIES[node.op_type])}.",
        )
    return legal[0]


def _function(node: ir.Node, chosen: Body) -> ir.Function:
    """The body of `chosen`, specialised to the node's types and attributes; named after the op."""
    builder = _builder()
    formal = [n.rstrip("?") for n in GRAD_OPS[node.op_type].inputs]
    inputs = [
        None if value is None else builder.input(formal[i], type_of(value))
        for i, value in enumerate(node.inputs)
    ]
    result = chosen.emit(Call(node, builder), *inputs)
    outputs = [result] if isinstance(result, ir.Value) else list(result)
    for output, given in zip(outputs, node.outputs, strict=True):
        if type_of(output) != type_of(given):
            raise AssertionError(
                f"body {chosen.name} of {chosen.op} gives {type_of(output)}, not {type_of(given)}"
            )
    if len(set(outputs)) < len(outputs) or any(output in builder.graph.inputs for output in outputs):
        outputs = [builder.op("Identity", output) for output in outputs]
    builder.graph.outputs.extend(outputs)
    # Bodies that differ in nothing but types are one function: it holds nodes, and no types.
    for value in (*builder.graph.inputs, *(output for inner in builder.graph for output in inner.outputs)):
        value.type = value.shape = None
    attributes = [ir.Attr(key, attr.type, attr.value) for key, attr in node.attributes.items()]
    function = ir.Function(GRAD_DOMAIN, node.op_type, graph=builder.graph, attributes=attributes)
    function.doc_string = f"{GRAD_OPS[node.op_type].doc}\n\nBody '{chosen.name}': {chosen.doc}"
    function.metadata_props.update({"cnnc.op": node.op_type, "cnnc.body": chosen.name})
    return function


def _builder() -> Builder:
    return Builder(ir.Graph([], [], nodes=[], opset_imports={"": OPSET}))
