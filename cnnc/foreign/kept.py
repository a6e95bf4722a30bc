"""A Loop or a Scan that can't be written out, kept as it is where no gradient has to pass it.

That is where it reads nothing that a parameter leads to. Its body is closed: what it reads from outside
becomes a value that it carries unchanged, so every later pass sees all that the node reads among its inputs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from onnx import GraphProto, NodeProto, TypeProto, helper

from cnnc.errors import UnsupportedError
from cnnc.foreign.inlining import inline
from cnnc.foreign.protos import attributes, label
from cnnc.foreign.slots import PASSING, SLOTS

if TYPE_CHECKING:
    from cnnc.foreign.walk import Walk

_FLOATING = frozenset({1, 10, 11, 16})
"""TensorProto's FLOAT, FLOAT16, DOUBLE and BFLOAT16."""


def keep(walk: Walk, node: NodeProto) -> None:
    """Append a Loop or a Scan of our opset with a closed body. Raises UnsupportedError."""
    if node.op_type == "Loop":
        _keep_loop(walk, node)
    else:
        _keep_scan(walk, node)


def _keep_loop(walk: Walk, node: NodeProto) -> None:
    body = attributes(node)["body"]
    trips, going, *carried = [*node.input, "", ""][: max(len(node.input), 2)]
    if any(node.output[len(carried) :]):
        raise UnsupportedError(f"{label(node)} collects what each step gives, as often as the data say.")
    heads = [walk.constant(np.array(0)), walk.constant(np.array(True))]
    types = [[world.types[name] for name in (*heads, *carried)] for world in walk.worlds]
    begun, nodes, ends = _body(walk, body, types)
    _check_carried(walk, node, carried, ends[1:])
    captured = _captured(nodes, ends, begun)
    _check_before_parameters(walk, node, nodes, [*carried, *captured])
    graph = _closed(walk, node, begun, nodes, ends, captured, at=len(ends))
    outputs = _outputs(walk, node, [*carried, *captured], [])
    walk.nodes.append(
        helper.make_node("Loop", [trips, going, *carried, *captured], outputs, node.name, body=graph)
    )


def _keep_scan(walk: Walk, node: NodeProto) -> None:
    given = attributes(node)
    body, count = given.pop("body"), given["num_scan_inputs"]
    carried, scanned = list(node.input[:-count]), list(node.input[-count:])
    axes = given.get("scan_input_axes", [0] * count)
    types, lengths = [], []
    for world in walk.worlds:
        sizes = [world.dims(name) for name in scanned]
        rows = [(world.types[x].tensor_type.elem_type, d) for x, d in zip(scanned, sizes, strict=True)]
        if any(d is None for d in sizes):
            raise UnsupportedError(f"{label(node)} scans an axis whose size the data tell.")
        lengths.append(next(d[axes[0]] for d in sizes if d is not None))
        types.append([world.types[name] for name in carried])
        types[-1] += [_without(e, d or (), axis) for (e, d), axis in zip(rows, axes, strict=True)]
    begun, nodes, ends = _body(walk, body, types)
    _check_carried(walk, node, carried, ends)
    captured = _captured(nodes, ends, begun)
    _check_before_parameters(walk, node, nodes, [*carried, *scanned, *captured])
    rows_out = ends[len(carried) :]
    outer = given.get("scan_output_axes", [0] * len(rows_out))
    collected = [
        [_with(world.types[name], length, axis) for name, axis in zip(rows_out, outer, strict=True)]
        for world, length in zip(walk.worlds, lengths, strict=True)
    ]
    graph = _closed(walk, node, begun, nodes, ends, captured, at=len(carried))
    outputs = _outputs(walk, node, [*carried, *captured], collected)
    inputs = [*carried, *captured, *scanned]
    walk.nodes.append(helper.make_node("Scan", inputs, outputs, node.name, body=graph, **given))


def _body(
    walk: Walk, body: GraphProto, types: Sequence[Sequence[TypeProto]]
) -> tuple[list[str], list[NodeProto], list[str]]:
    """Names of a body's inputs, which have these types in each world, its nodes, its outputs' names."""
    begun = [walk.fresh(value.name) for value in body.input]
    for world, each in zip(walk.worlds, types, strict=True):
        world.types.update(zip(begun, each, strict=True))
    outside, walk.nodes = walk.nodes, []
    problems = len(walk.problems)
    try:
        ends = inline(walk, body, dict(zip((v.name for v in body.input), begun, strict=True)))
        nodes = walk.nodes
    finally:
        walk.nodes = outside
    if len(walk.problems) > problems:
        inner, why = walk.problems[problems]
        raise UnsupportedError(f"its body can't be read: {why or label(inner)}")
    return begun, nodes, ends


def _check_carried(walk: Walk, node: NodeProto, carried: Sequence[str], ends: Sequence[str]) -> None:
    for before, after in zip(carried, ends, strict=False):
        if not walk.alike(before, after):
            raise UnsupportedError(f"{label(node)} carries '{before}', whose shape its steps change.")


def _captured(nodes: Sequence[NodeProto], ends: Sequence[str], begun: Sequence[str]) -> list[str]:
    """What a body reads from outside."""
    own = {*begun, *(name for node in nodes for name in node.output)}
    read = [*(name for node in nodes for name in node.input if name), *ends]
    return [name for name in dict.fromkeys(read) if name not in own]


def _check_before_parameters(
    walk: Walk, node: NodeProto, body: Sequence[NodeProto], inputs: Sequence[str]
) -> None:
    """Refuse a node that a parameter leads to through floating-point values."""
    source, led = set(walk.weights), set[str]()
    for each in (*walk.nodes, *body):
        if each.op_type in PASSING and each.input[0] in source:
            source.update(each.output)
        slots = zip(SLOTS.get(each.op_type, ()), each.input, strict=False)
        if any(kind and name in source for kind, name in slots) or not led.isdisjoint(each.input):
            led.update(name for name in each.output if name and walk.dtype(name) in _FLOATING)
    if not led.isdisjoint([*inputs, *(name for each in body for name in each.output)]):
        raise UnsupportedError(f"{label(node)} lies after a parameter, whose gradient can't pass it.")


def _closed(
    walk: Walk,
    node: NodeProto,
    begun: Sequence[str],
    nodes: Sequence[NodeProto],
    ends: Sequence[str],
    captured: Sequence[str],
    at: int,
) -> GraphProto:
    """The body with what it reads from outside among its inputs and, unchanged, among its outputs at `at`."""
    inside = {name: walk.fresh(name) for name in captured}
    for name, new in inside.items():
        for world in walk.worlds:
            world.types[new] = world.types[name]
    for each in nodes:
        each.input[:] = [inside.get(name, name) for name in each.input]
    first = len(begun) if node.op_type == "Loop" else at
    inputs = [*begun[:first], *inside.values(), *begun[first:]]
    scalars = begun[:2] if node.op_type == "Loop" else ()
    sources = [inside.get(name, name) for name in ends]
    sources[at:at] = inside.values()
    outputs = [walk.fresh(name) for name in sources]
    copies = [helper.make_node("Identity", [s], [o], o) for s, o in zip(sources, outputs, strict=True)]
    return helper.make_graph(
        [*nodes, *copies],
        f"{node.name or node.output[0]}/body",
        [
            helper.make_tensor_value_info(name, walk.dtype(name), [] if name in scalars else None)
            for name in inputs
        ],
        [
            helper.make_tensor_value_info(o, walk.dtype(s), None)
            for s, o in zip(sources, outputs, strict=True)
        ],
    )


def _outputs(
    walk: Walk, node: NodeProto, carried: Sequence[str], collected: Sequence[Sequence[TypeProto]]
) -> list[str]:
    """Names of a kept node's outputs, whose types are known now: the source's and what is only carried."""
    rows = len(collected[0]) if collected else 0
    own = [*node.output]
    own_rows = own[len(own) - rows :] if rows else []
    own_ends = own[: len(own) - rows] if rows else own
    names = [n or walk.fresh(node.name or "unread") for n in own_ends]
    names += [walk.fresh(name) for name in carried[len(names) :]]
    last = [name or walk.fresh(node.name or "unread") for name in own_rows]
    for place, world in enumerate(walk.worlds):
        world.types.update(zip(names, [world.types[name] for name in carried], strict=True))
        if rows:
            world.types.update(zip(last, collected[place], strict=True))
    return [*names, *last]


def _without(dtype: int, dims: Sequence[int], axis: int) -> TypeProto:
    axis %= len(dims)
    return helper.make_tensor_type_proto(dtype, [*dims[:axis], *dims[axis + 1 :]])


def _with(row: TypeProto, length: int, axis: int) -> TypeProto:
    dims = [d.dim_value for d in row.tensor_type.shape.dim]
    axis %= len(dims) + 1
    return helper.make_tensor_type_proto(row.tensor_type.elem_type, [*dims[:axis], length, *dims[axis:]])
