"""Small changes to finished graphs: other names, other outputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import onnx
from onnx import GraphProto, helper

from cnnc.bundle import LOSS, metric_count, metric_sum


def rename(graph: GraphProto, names: Mapping[str, str]) -> None:
    """Give values of a graph, but not its inputs and outputs, other names; nodes keep theirs."""
    for node in graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names.get(name, name) for name in node.output]
    for value in graph.value_info:
        value.name = names.get(value.name, value.name)


def mean_loss(graph: GraphProto) -> None:
    """Append the mean loss to a graph that gives the loss's sum and count."""
    total, count = metric_sum("loss"), metric_count("loss")
    info = next(value for value in graph.output if value.name == total)
    graph.node.append(helper.make_node("CastLike", [count, total], ["loss/count"], "loss/count"))
    graph.node.append(helper.make_node("Div", [total, "loss/count"], [LOSS], LOSS))
    graph.output.append(helper.make_tensor_value_info(LOSS, info.type.tensor_type.elem_type, []))


def keep_outputs(graph: GraphProto, names: Sequence[str]) -> None:
    """Make the values `names` the outputs, in this order."""
    known = {value.name: value for value in (*graph.output, *graph.value_info)}
    outputs = [onnx.ValueInfoProto.FromString(known[name].SerializeToString()) for name in names]
    del graph.output[:]
    graph.output.extend(outputs)
    kept = [value for value in graph.value_info if value.name not in set(names)]
    del graph.value_info[:]
    graph.value_info.extend(kept)


def drop_unread(graph: GraphProto) -> None:
    """Take away nodes whose outputs nothing reads, and then inputs likewise."""
    read, nodes = {value.name for value in graph.output}, []
    for node in reversed(graph.node):
        if not read.isdisjoint(node.output):
            read.update(node.input)
            nodes.append(node)
    inputs = [value for value in graph.input if value.name in read]
    for field, kept in ((graph.node, nodes[::-1]), (graph.input, inputs)):
        del field[:]
        field.extend(kept)
