"""Control flow written out: an If as both its branches and a choice, a Loop or a Scan step by step.

So whatever stands in them is differentiated like anything else. What only the run decides (how often a Loop
goes round, branches of different shapes) is refused with a reason.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from onnx import NodeProto, helper

from cnnc.errors import ModelError, UnsupportedError
from cnnc.foreign.inlining import inline
from cnnc.foreign.kept import keep
from cnnc.foreign.protos import attributes, label
from cnnc.foreign.world import Array

if TYPE_CHECKING:
    from cnnc.foreign.walk import Walk

MOST_STEPS = 256
"""Steps that a Loop or a Scan may take: each becomes nodes of its own."""


def write_out(walk: Walk, node: NodeProto) -> None:
    """Append what stands for an If, a Loop or a Scan. Raises UnsupportedError, ModelError."""
    if node.op_type not in _FORMS:
        raise UnsupportedError(f"{label(node)} holds a graph, which cnnc can't write out.")
    if node.op_type == "Scan" and walk.version < 9:
        raise UnsupportedError(f"{label(node)} is a Scan of opset 8, which had the batch in front.")
    try:
        _FORMS[node.op_type](walk, node)
    except (KeyError, IndexError, ValueError) as error:
        raise ModelError(
            f"{label(node)} is invalid: its graphs do not fit its inputs and outputs."
        ) from error


def _unrolled_or_kept(unroll: Callable[[Walk, NodeProto], None], walk: Walk, node: NodeProto) -> None:
    """Step by step; else, where no gradient has to pass it, the node as it is."""
    begun, problems = len(walk.nodes), len(walk.problems)
    try:
        unroll(walk, node)
        return
    except UnsupportedError as error:
        refused = error
    del walk.nodes[begun:], walk.problems[problems:]
    try:
        keep(walk, node)
    except UnsupportedError as why:
        del walk.problems[problems:]
        raise UnsupportedError(f"{refused.what} {why.what}") from why


def _branch(walk: Walk, node: NodeProto) -> None:
    """The branch that a known condition takes; else both, and a choice between what they give."""
    condition, graphs = walk.known(node.input[0]), attributes(node)
    if condition is not None:
        taken = graphs["then_branch" if condition.reshape(-1)[0] else "else_branch"]
        for outer, inner in zip(node.output, inline(walk, taken, {}), strict=True):
            walk.rename(outer, inner)
        return
    both = [inline(walk, graphs[f"{name}_branch"], {}) for name in ("then", "else")]
    if any(not walk.has(name) for names in both for name in names):
        raise UnsupportedError(f"{label(node)} chooses its branch as it runs, and one of them can't be read.")
    if any(not walk.alike(then, other) for then, other in zip(*both, strict=True)):
        raise UnsupportedError(f"{label(node)} chooses its branch as it runs, and they give other shapes.")
    scalar = _put(walk, "Reshape", [node.input[0], walk.constant(np.array([], np.int64))], node.input[0])
    for outer, then, other in zip(node.output, *both, strict=True):
        walk.append(helper.make_node("Where", [scalar, then, other], [outer], outer))


def _loop(walk: Walk, node: NodeProto) -> None:
    """As many copies of the body as the trip count and the condition say, both known."""
    body = attributes(node)["body"]
    trips = _told(walk, node, node.input[0])
    going = _told(walk, node, node.input[1] if len(node.input) > 1 else "")
    carried, seen = list(node.input[2:]), list[list[str]]()
    step = 0
    while (going is None or bool(going)) and (trips is None or step < int(trips)):
        _check_steps(node, step)
        given = [walk.constant(np.array(step)), walk.constant(np.array(True)), *carried]
        names = [value.name for value in body.input]
        condition, *found = inline(walk, body, dict(zip(names, given, strict=True)))
        carried, rows = found[: len(carried)], found[len(carried) :]
        seen.append(rows)
        going = _told(walk, node, condition)
        step += 1
    for outer, inner in zip(node.output, carried, strict=False):
        walk.rename(outer, inner)
    _stack(walk, node, node.output[len(carried) :], seen, [0] * len(node.output))


def _scan(walk: Walk, node: NodeProto) -> None:
    """A copy of the body for each place on the axis that is scanned, whose size is known."""
    given = attributes(node)
    body, count = given["body"], given["num_scan_inputs"]
    carried, scanned = list(node.input[:-count]), list(node.input[-count:])
    outputs = len(node.output) - len(carried)
    axes = given.get("scan_input_axes", [0] * count)
    back = given.get("scan_input_directions", [0] * count)
    length = walk.dims(scanned[0])[axes[0]]
    if length is None:
        raise UnsupportedError(f"{label(node)} scans an axis whose size the batch or the data tell.")
    seen: list[list[str]] = []
    for step in range(length):
        _check_steps(node, step)
        rows = [
            _put(walk, "Gather", [x, walk.constant(np.array(length - 1 - step if b else step))], x, axis=axis)
            for x, axis, b in zip(scanned, axes, back, strict=True)
        ]
        names = [value.name for value in body.input]
        found = inline(walk, body, dict(zip(names, [*carried, *rows], strict=True)))
        carried, row = found[: len(carried)], found[len(carried) :]
        seen.append(row)
    for outer, inner in zip(node.output, carried, strict=False):
        walk.rename(outer, inner)
    turned = given.get("scan_output_directions", [0] * outputs)
    columns = [[row[i] for row in (seen[::-1] if turned[i] else seen)] for i in range(outputs)]
    rows_in_order = [list(row) for row in zip(*columns, strict=True)] if columns else []
    _stack(
        walk, node, node.output[len(carried) :], rows_in_order, given.get("scan_output_axes", [0] * outputs)
    )


_FORMS: dict[str, Callable[[Walk, NodeProto], None]] = {
    "If": _branch,
    "Loop": partial(_unrolled_or_kept, _loop),
    "Scan": partial(_unrolled_or_kept, _scan),
}


def _told(walk: Walk, node: NodeProto, name: str) -> Array | None:
    """The number of a trip count or condition, None where there is none. Raises UnsupportedError."""
    if not name:
        return None
    known = walk.known(name)
    if known is None:
        raise UnsupportedError(f"{label(node)} goes round as often as the data say.")
    return known.reshape(-1)[0]


def _check_steps(node: NodeProto, step: int) -> None:
    if step >= MOST_STEPS:
        raise UnsupportedError(f"{label(node)} takes more than {step} steps, too many to write out.")


def _stack(
    walk: Walk, node: NodeProto, outer: Sequence[str], rows: Sequence[Sequence[str]], axes: Sequence[int]
) -> None:
    """What all steps gave, side by side on a new axis."""
    for i, name in enumerate(outer):
        if not name:
            continue
        if not rows:
            raise UnsupportedError(f"{label(node)} takes no step, and collects '{name}'.")
        axis = walk.constant(np.array([axes[i]], np.int64))
        parts = [_put(walk, "Unsqueeze", [row[i], axis], name) for row in rows]
        walk.append(helper.make_node("Concat", parts, [name], name, axis=axes[i]))


def _put(walk: Walk, op_type: str, inputs: Sequence[str], like: str, **attributes: Any) -> str:
    """Append a node and return its output's name."""
    name = walk.fresh(like)
    walk.append(helper.make_node(op_type, inputs, [name], name, **attributes))
    return name
