"""The reverse walk. Everything general happens here, once: which nodes matter, accumulation,
un-broadcasting, names and provenance. A rule does mathematics only.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import onnx
import onnx_ir as ir

from cnnc.autodiff.rule import RULES, Context
from cnnc.errors import UnsupportedError
from cnnc.ir import GRAD_OPS, Builder, Dim, agree, dims_of, type_of
from cnnc.opset import OPSET


def gradients(builder: Builder, loss: ir.Value, wrt: Sequence[ir.Value]) -> list[ir.Value | None]:
    """Append the gradient nodes of the scalar `loss` and return its gradient for each value of `wrt`.

    Each gradient has its value's shape and type; it is None where the loss does not depend on the value.
    The node that gives it is named ``grad/<forward node>/<input>`` and carries the forward node's name and
    the user's line in its metadata. Raises UnsupportedError where a node on the path has no rule.
    """
    nodes = list(builder.graph)
    active = _reachable(nodes, wrt)
    partials: dict[ir.Value, list[ir.Value]] = {}
    if loss in active:
        partials[loss] = [builder.constant(1.0, loss.dtype)]
    for node in reversed(nodes):
        needed = [value in active for value in node.inputs]
        if not any(needed) or not any(output in partials for output in node.outputs):
            continue
        where = node.metadata_props.get("cnnc.where", "")
        scope = f"grad/{str(node.name).lstrip('/')}"
        with builder.scope(scope, forward=str(node.name), where=where):
            dys = [_total(builder, partials, output) for output in node.outputs]
            found = _apply(Context(builder, node, needed), dys, where)
            for value, gradient in zip(node.inputs, found, strict=True):
                if value is None or value not in active or gradient is None:
                    continue
                gradient = unbroadcast(builder, gradient, dims_of(value))
                _match(gradient, value, node)
                _name(builder, gradient, scope, node, value, wrt)
                partials.setdefault(value, []).append(gradient)
    return [_total(builder, partials, value) for value in wrt]


def unbroadcast(builder: Builder, gradient: ir.Value, dims: tuple[Dim, ...]) -> ir.Value:
    """Sum a gradient over the axes along which its input was broadcast."""
    have = dims_of(gradient)
    lead = len(have) - len(dims)
    inner = [i + lead for i, d in enumerate(dims) if d == 1 and have[i + lead] != 1]
    if inner:
        gradient = builder.op("ReduceSum", gradient, inner, keepdims=1)
    if lead:
        gradient = builder.op("ReduceSum", gradient, list(range(lead)), keepdims=0)
    return gradient


def _reachable(nodes: Iterable[ir.Node], wrt: Sequence[ir.Value]) -> set[ir.Value | None]:
    """The floating-point values that depend on a value of `wrt`."""
    active: set[ir.Value | None] = set(wrt)
    for node in nodes:
        if any(value in active for value in node.inputs):
            active.update(v for v in node.outputs if v.dtype is not None and v.dtype.is_floating_point())
    return active - {None}


def _total(builder: Builder, partials: dict[ir.Value, list[ir.Value]], value: ir.Value) -> ir.Value | None:
    """The gradient of `value`: all contributions to it, summed in one node ``grad/<value>``."""
    parts = partials.get(value, [])
    if len(parts) > 1:
        with builder.scope("grad", wrt=str(value.name)):
            parts = partials[value] = [
                builder.op("Sum", *parts, name=f"grad/{value.name}", dims=dims_of(value))
            ]
    return parts[0] if parts else None


def _apply(op: Context, dys: Sequence[ir.Value | None], where: str) -> list[ir.Value | None]:
    """The rule's gradients, one for each input."""
    node = op.node
    if node.op_type not in RULES:
        raise UnsupportedError(
            f"operator {node.op_type} (node '{node.name}') lies between parameters and loss and has no "
            f"gradient rule.",
            where=where,
            hint="Freeze what comes before it, or add a rule in cnnc/autodiff/rules/.",
        )
    result = RULES[node.op_type](op, *dys)
    gradients = [result] if result is None or isinstance(result, ir.Value) else list(result)
    if len(gradients) > len(node.inputs):
        raise AssertionError(f"the rule of {node.op_type} returned {len(gradients)} gradients")
    return gradients + [None] * (len(node.inputs) - len(gradients))


def _match(gradient: ir.Value, value: ir.Value, node: ir.Node) -> None:
    """Check that a rule's gradient has the type of its value, and let it take the value's symbols."""
    have, want = type_of(gradient), type_of(value)
    if have.dtype != want.dtype or not agree(have.dims, want.dims):
        raise AssertionError(f"the rule of {node.op_type} gave {have} as gradient of '{value.name}', {want}")
    gradient.shape = ir.Shape(want.dims)


def _name(
    builder: Builder,
    gradient: ir.Value,
    scope: str,
    node: ir.Node,
    value: ir.Value,
    wrt: Sequence[ir.Value],
) -> None:
    """Name a gradient that this rule made, and note which value it belongs to.

    A gradient that a rule passes through (that of Add) keeps the name it has.
    """
    producer = gradient.producer()
    if producer is None or producer.metadata_props.get("cnnc.forward") != node.name:
        return
    named = producer.metadata_props.get("cnnc.wrt", "").split()
    if value.name not in named and len(named) < len(producer.outputs):
        producer.metadata_props["cnnc.wrt"] = " ".join([*named, str(value.name)])
        builder.rename(gradient, f"{scope}/{_label(node, value, wrt)}")


def _label(node: ir.Node, value: ir.Value, wrt: Sequence[ir.Value]) -> str:
    """What a gradient is called: the parameter's field, ``input``, or the operator's name of the input."""
    if value in wrt:
        return str(value.name).rsplit(".", 1)[-1].replace("/", ".")
    if len({v for v in node.inputs if v is not None and v not in wrt}) == 1:
        return "input"
    index = list(node.inputs).index(value)
    if node.op_type in GRAD_OPS:
        return GRAD_OPS[node.op_type].inputs[index].rstrip("?")
    formal = onnx.defs.get_schema(node.op_type, OPSET, "").inputs
    return str(formal[min(index, len(formal) - 1)].name).lower()
