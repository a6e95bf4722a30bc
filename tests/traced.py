"""Small graphs from the DSL, traced and run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
from reference import evaluator

from cnnc import nn
from cnnc.ir import Builder, Network, TensorType
from cnnc.lowering import lower
from cnnc.opset import GRAD_DOMAIN, GRAD_VERSION, IR_VERSION, OPSET

Array = np.ndarray[Any, Any]
Model = Callable[[nn.Value], nn.Value]


def trace(model: Model, *sizes: int) -> Network:
    """The forward graph of a model on an input x [N, *sizes]."""
    trace = nn.Trace("case")
    trace.network.graph.outputs.append(model(trace.input("x", ("N", *sizes))).value)
    return trace.network


def parameters(network: Network, seed: int = 0) -> dict[str, Array]:
    """Random values of all parameters, positive where they are variances."""
    rng = np.random.default_rng(seed)
    shapes = {p.name: p.type.sizes for p in network.parameters.values()}
    drawn = {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
    return {name: np.abs(a) + 0.1 if name.endswith("running_var") else a for name, a in drawn.items()}


def run(graph: ir.Graph, feeds: Mapping[str, Array]) -> list[Array]:
    """All outputs of a graph, by ONNX Runtime."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    model = lowered(graph).SerializeToString()
    return list(onnxruntime.InferenceSession(model, options, ["CPUExecutionProvider"]).run(None, dict(feeds)))


def run_reference(graph: ir.Graph, feeds: Mapping[str, Array]) -> list[Array]:
    """All outputs of a graph, by onnx's ReferenceEvaluator."""
    return list(evaluator(lowered(graph)).run(None, dict(feeds)))


def emitted(
    emit: Callable[..., tuple[ir.Value, ...]],
    feeds: Mapping[str, Array],
    runtime: Callable[[ir.Graph, Mapping[str, Array]], list[Array]] = run,
) -> list[Array]:
    """The outputs of what `emit` appends for a builder and one input for each of `feeds`."""
    builder = Builder(ir.Graph([], [], nodes=[], opset_imports={"": OPSET}, name="case"))
    inputs = [
        builder.input(name, TensorType(ir.DataType.from_numpy(array.dtype), array.shape))
        for name, array in feeds.items()
    ]
    for value in emit(builder, *inputs):
        builder.graph.outputs.append(builder.op("Identity", value))
    return runtime(builder.graph, feeds)


def lowered(graph: ir.Graph) -> onnx.ModelProto:
    """The graph as a model whose gradient ops have bodies, checked."""
    functions, _ = lower(graph)
    graph.opset_imports[GRAD_DOMAIN] = GRAD_VERSION
    model = ir.serde.serialize_model(ir.Model(graph, ir_version=IR_VERSION, functions=functions))
    onnx.checker.check_model(model, full_check=True)
    return model
