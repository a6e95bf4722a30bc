"""A batch in equal lanes that run side by side, each on cores of its own, and what joins them.

The threads of an operator meet at its end: some hundred times a step, which costs more than the work where a
step is short. Lanes meet once. Two graphs come of a step: the *lane*, forward and backward for one part of
the batch, and the *join*, the mean of the lanes' gradients and the update. That is the same step under the
conditions of `cnnc.layout.chunks`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

import onnx_ir as ir

from cnnc.bundle import of_lane
from cnnc.ir import Builder, type_of
from cnnc.ir.transcribe import begun_like
from cnnc.layout.chunks import copy_nodes, joined, parts_of
from cnnc.layout.relayout import copy_note


def lane_of(step: ir.Graph, batch: Collection[str]) -> ir.Graph:
    """Forward and backward of `step`, which is for one part of the batch: its outputs are what a join takes.

    They have the names that they have in the step: the loss, the metrics, the gradients.
    """
    parts = parts_of(step, batch)
    builder, values = _begin(step, {*step.inputs} & _read_by([*parts.shared, *parts.work], parts.across))
    copy_nodes(builder, [*parts.shared, *parts.work], values)
    for value in parts.across:
        builder.graph.outputs.append(values[value])
    return builder.graph


def join_of(step: ir.Graph, batch: Collection[str], count: int) -> ir.Graph:
    """The rest of `step`: it takes the state and what `count` lanes give, under the names of `of_lane`."""
    parts = parts_of(step, batch)
    after = parts.after(step)
    builder, values = _begin(step, {*step.inputs} & _read_by([*parts.shared, *after], step.outputs))
    copy_nodes(builder, parts.shared, values)
    for value in parts.across:
        given = [builder.input(of_lane(i, str(value.name)), type_of(value)) for i in range(count)]
        values[value] = joined(builder, value, given)
        copy_note(value, values[value])
    copy_nodes(builder, after, values)
    for value in step.outputs:
        result = values[value]
        result.name = str(value.name)
        builder.graph.outputs.append(result)
    return builder.graph


def _begin(step: ir.Graph, read: Collection[ir.Value]) -> tuple[Builder, dict[ir.Value, ir.Value]]:
    """A builder whose graph has those inputs of a step that are read."""
    builder, values = begun_like(step), {}
    for value in step.inputs:
        if value in read:
            values[value] = builder.input(str(value.name), type_of(value))
            copy_note(value, values[value])
    return builder, values


def _read_by(nodes: Iterable[ir.Node], outputs: Iterable[ir.Value]) -> set[ir.Value]:
    return {v for node in nodes for v in node.inputs if v is not None} | set(outputs)
