"""Tensors that several layers read: shared on purpose, or only stored once because they were equal.

Exporters store equal tensors once. In a network that has not been trained yet that ties together what has
nothing to do with each other: all scales are 1, all running means 0.
"""

from __future__ import annotations

from dataclasses import replace

import onnx
from onnx import GraphProto, NodeProto, numpy_helper

from cnnc.foreign.reading import Foreign
from cnnc.foreign.slots import SLOTS
from cnnc.ir.network import Kind

_FIELDS = ("input", "weight", "bias", "running_mean", "running_var")


def untie(foreign: Foreign) -> tuple[Foreign, list[str]]:
    """Give each layer its own running statistics, scale and bias where one stored tensor serves several.

    Statistics are never shared; scales and biases are taken for equal by chance where all their numbers are
    the same. Returns the model and notes.
    """
    graph = GraphProto()
    graph.CopyFrom(foreign.graph)
    drawn, arrays, stored = dict(foreign.drawn), dict(foreign.arrays), set(foreign.stored)
    small = {tensor.name: tensor for tensor in graph.initializer}
    taken = {name for node in graph.node for name in (*node.input, *node.output)}
    first: dict[str, Kind] = {}
    added = []
    for node in graph.node:
        for index, kind in enumerate(SLOTS.get(node.op_type, ())[: len(node.input)]):
            name = node.input[index]
            if kind in (None, "weight") or not (name in drawn or name in arrays or name in small):
                continue
            if name not in first:
                first[name] = kind
                continue
            if "statistic" not in (kind, first[name]) and not _uniform(foreign, name):
                continue
            node.input[index] = new = _fresh(node, index, taken)
            added.append(new)
            if name in drawn:
                drawn[new] = drawn[name]
            else:
                arrays[new] = arrays[name] if name in arrays else numpy_helper.to_array(small[name])
            stored.add(new)
            graph.input.append(onnx.helper.make_tensor_value_info(new, *_type(graph, name)))
    if not added:
        return foreign, []
    note = f"{len(added)} tensors that were stored once for several layers are parameters of their own again."
    return replace(foreign, graph=graph, drawn=drawn, arrays=arrays, stored=frozenset(stored)), [note]


def _uniform(foreign: Foreign, name: str) -> bool:
    """Whether all numbers of a tensor are the same."""
    if name in foreign.drawn:
        return True
    array = foreign.arrays.get(name)
    return array is not None and bool((array == array.reshape(-1)[0]).all())


def _type(graph: GraphProto, name: str) -> tuple[int, list[int]]:
    for value in graph.input:
        if value.name == name:
            tensor = value.type.tensor_type
            return tensor.elem_type, [d.dim_value for d in tensor.shape.dim]
    return next((t.data_type, list(t.dims)) for t in graph.initializer if t.name == name)


def _fresh(node: NodeProto, index: int, taken: set[str]) -> str:
    """A name beside that of the layer's first parameter: ``bn1.running_mean`` beside ``bn1.weight``."""
    layer = node.input[1].rpartition(".")[0] or node.name or node.output[0]
    name, count = f"{layer}.{_FIELDS[index]}", 1
    while name in taken:
        count += 1
        name = f"{layer}.{_FIELDS[index]}_{count}"
    taken.add(name)
    return name
