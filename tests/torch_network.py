"""PyTorch's own forward pass of a traced network: the oracle of whole steps.

It interprets the forward graph (inference form) with torch operators in training mode; the gradients are
torch's autograd, the updates torch.optim.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import onnx_ir as ir
import torch
from torch.nn import functional

from cnnc.ir import Network
from cnnc.ir.windows import Window, window_of


def forward(
    network: Network,
    image: torch.Tensor,
    state: Mapping[str, torch.Tensor],
    masks: Mapping[str, torch.Tensor],
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """The output for a batch, and the next running statistics (ONNX's definition).

    `masks` are the dropout masks, by the names of their nodes.
    """
    values: dict[ir.Value, Any] = {v: state[str(v.name)] for v in network.graph.inputs[1:]}
    values[network.input] = image
    statistics: dict[str, torch.Tensor] = {}
    for node in network.graph:
        inputs: list[Any] = [None if v is None else values[v] for v in node.inputs]
        if node.op_type == "BatchNormalization":
            values[node.outputs[0]] = _batch_norm(node, inputs, statistics)
        elif node.op_type == "Dropout":
            values[node.outputs[0]] = inputs[0] * masks[f"{node.name}/mask"]
        else:
            values[node.outputs[0]] = _OPERATORS[node.op_type](node, *inputs)
    return values[network.output], statistics


def _batch_norm(node: ir.Node, inputs: list[Any], statistics: dict[str, torch.Tensor]) -> torch.Tensor:
    x, scale, bias, mean, var = inputs
    axes = [i for i in range(x.dim()) if i != 1]
    momentum = node.attributes["momentum"].as_float()
    with torch.no_grad():
        for value, old, new in (
            (node.inputs[3], mean, x.mean(axes)),
            (node.inputs[4], var, x.var(axes, correction=0)),
        ):
            assert value is not None
            statistics[str(value.name)] = old * momentum + new * (1 - momentum)
    return functional.batch_norm(
        x, None, None, scale, bias, training=True, eps=node.attributes["epsilon"].as_float()
    )


def _pad(x: torch.Tensor, window: Window, value: float) -> torch.Tensor:
    amounts = [p for b, e in reversed(list(zip(window.begins, window.ends, strict=True))) for p in (b, e)]
    return functional.pad(x, amounts, value=value) if any(amounts) else x


def _conv(node: ir.Node, x: torch.Tensor, w: torch.Tensor, b: torch.Tensor | None = None) -> torch.Tensor:
    window = window_of(node)
    group = node.attributes["group"].as_int() if "group" in node.attributes else 1
    return functional.conv2d(_pad(x, window, 0.0), w, b, window.strides, 0, window.dilations, group)


def _max_pool(node: ir.Node, x: torch.Tensor) -> torch.Tensor:
    window = window_of(node)
    return functional.max_pool2d(_pad(x, window, float("-inf")), window.kernel_shape, window.strides)


def _average_pool(node: ir.Node, x: torch.Tensor) -> torch.Tensor:
    window = window_of(node)
    assert not any(window.pads)
    return functional.avg_pool2d(x, window.kernel_shape, window.strides)


def _constant(node: ir.Node) -> torch.Tensor:
    return torch.tensor(node.attributes["value"].as_tensor().numpy())


def _gemm(node: ir.Node, a: torch.Tensor, b: torch.Tensor, c: torch.Tensor | None = None) -> torch.Tensor:
    product = a @ (b.T if "transB" in node.attributes and node.attributes["transB"].as_int() else b)
    return product if c is None else product + c


_OPERATORS: dict[str, Any] = {
    "Add": lambda node, a, b: a + b,
    "AveragePool": _average_pool,
    "Constant": _constant,
    "Conv": _conv,
    "Flatten": lambda node, x: x.flatten(1),
    "Gemm": _gemm,
    "GlobalAveragePool": lambda node, x: x.mean((2, 3), keepdim=True),
    "LeakyRelu": lambda node, x: functional.leaky_relu(x, node.attributes["alpha"].as_float()),
    "MaxPool": _max_pool,
    "Relu": lambda node, x: torch.relu(x),
    "Tanh": lambda node, x: torch.tanh(x),
}
