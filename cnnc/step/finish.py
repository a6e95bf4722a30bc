"""From the nodes of a graph to a model file: outputs named, dead nodes dropped, lowered, checked."""

from __future__ import annotations

import json
from collections.abc import Mapping

import onnx
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from cnnc import __version__
from cnnc.bundle import NEXT, FunctionSpec
from cnnc.ir import Builder
from cnnc.lowering import lower
from cnnc.opset import GRAD_DOMAIN, GRAD_VERSION, IR_VERSION, OPSET

LARGE = 2**20
"""Bytes of a tensor that the checker need not see."""


def new_graph(name: str) -> Builder:
    """An empty graph of our opset."""
    return Builder(ir.Graph([], [], nodes=[], opset_imports={"": OPSET}, name=name))


def following(state: Mapping[str, ir.Value], moved: Mapping[str, ir.Value]) -> dict[str, ir.Value]:
    """An output ``next/…`` for each state input; what nothing changes comes back as it is."""
    return {NEXT + name: moved.get(name, value) for name, value in state.items()}


def finish(
    builder: Builder, outputs: Mapping[str, ir.Value], choices: Mapping[str, str] | None = None
) -> tuple[bytes, list[FunctionSpec]]:
    """The model, checked, as the bytes of its file, and which body each gradient op got.

    `outputs` are the graph's by name; `choices` maps gradient nodes to the bodies they shall have.
    """
    graph = builder.graph
    for name, value in outputs.items():
        if value.name != name:
            if value.is_graph_input() or value.is_graph_output() or value in graph.outputs:
                value = builder.op("Identity", value, name=name)
            else:
                value.name = name
        graph.outputs.append(value)
    model = ir.Model(graph, ir_version=IR_VERSION, producer_name="cnnc", producer_version=__version__)
    RemoveUnusedNodesPass()(model)
    functions, specs = lower(graph, choices)
    for function in functions:
        model.functions[function.identifier()] = function
    if functions:
        graph.opset_imports[GRAD_DOMAIN] = GRAD_VERSION
    pairs = {name: name.removeprefix(NEXT) for name in outputs if name.startswith(NEXT)}
    if pairs:
        model.metadata_props["cnnc.state"] = json.dumps(pairs)
    proto = ir.serde.serialize_model(model)
    data = proto.SerializeToString(deterministic=True)
    _without_data(proto.graph)
    onnx.checker.check_model(proto, full_check=True)
    return data, specs


def _without_data(graph: onnx.GraphProto) -> None:
    """Let large tensors be inputs: the checker would copy them twice, and looks at their types alone."""
    kept = []
    for tensor in graph.initializer:
        if len(tensor.raw_data) > LARGE:
            graph.input.append(
                onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims))
            )
        else:
            kept.append(tensor)
    if len(kept) < len(graph.initializer):
        small = [onnx.TensorProto.FromString(tensor.SerializeToString()) for tensor in kept]
        del graph.initializer[:]
        graph.initializer.extend(small)
