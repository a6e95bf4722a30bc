"""Batch normalisation folded into the convolution or dense layer before it.

In inference y = γ · (W·x + b - μ) / √(σ² + ε) + β is again W'·x + b', with k = γ / √(σ² + ε) for each output
channel, W' = k·W and b' = k·b + β - k·μ; Jacob et al., 2018, section 3.2.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import numpy_helper

Array = npt.NDArray[Any]


def _conv(node: onnx.NodeProto, weight: Array, bias: Array, factor: Array) -> tuple[Array, Array]:
    """Weight [channels, …], bias [channels]."""
    return weight * factor.reshape(-1, *[1] * (weight.ndim - 1)), bias * factor


def _gemm(node: onnx.NodeProto, weight: Array, bias: Array, factor: Array) -> tuple[Array, Array]:
    """Weight [features, channels], or its transpose with transB; beta goes into the bias."""
    attributes = {item.name: item for item in node.attribute}
    beta = attributes.pop("beta").f if "beta" in attributes else 1.0
    transposed = "transB" in attributes and attributes["transB"].i
    del node.attribute[:]
    node.attribute.extend(attributes.values())
    return weight * (factor[:, None] if transposed else factor), beta * bias * factor


FOLDS: dict[str, Callable[[onnx.NodeProto, Array, Array, Array], tuple[Array, Array]]] = {
    "Conv": _conv,
    "Gemm": _gemm,
}
"""For each operator: weight and bias of k·y from those of y, where k is `factor` [channels]."""


def fold_batch_normalization(graph: onnx.GraphProto) -> int:
    """Fold every BatchNormalization that can be, in place, and return how many.

    It can be where nothing else reads the values it normalises and all weights are constants of these two
    nodes alone. The arithmetic is in float64.
    """
    constants = {tensor.name: tensor for tensor in graph.initializer}
    producers = {name: node for node in graph.node for name in node.output}
    uses = Counter(name for node in graph.node for name in node.input)
    uses.update(value.name for value in graph.output)
    folded = []
    for norm in graph.node:
        node = producers.get(norm.input[0]) if _is_inference_norm(norm) else None
        if node is None or node.op_type not in FOLDS:
            continue
        names = [name for name in (*norm.input[1:], *node.input[1:]) if name]
        if uses[norm.input[0]] == 1 and all(name in constants and uses[name] == 1 for name in names):
            weights = [numpy_helper.to_array(constants[name]) for name in names]
            if len(weights) == 6 and not _is_row(weights[5]):
                continue
            _fold(norm, node, constants, weights)
            folded.append(norm)
    for norm in folded:
        graph.node.remove(norm)
    _drop_unused(graph)
    return len(folded)


def _fold(
    norm: onnx.NodeProto, node: onnx.NodeProto, constants: dict[str, onnx.TensorProto], weights: list[Array]
) -> None:
    """`weights` are scale, offset, mean and variance of `norm`, then weight and perhaps bias of `node`."""
    scale, offset, mean, variance, weight, *bias = (array.astype(np.float64) for array in weights)
    epsilon = next((item.f for item in norm.attribute if item.name == "epsilon"), 1e-5)
    factor = scale / np.sqrt(variance + epsilon)
    old_bias = bias[0].reshape(-1) if bias else np.zeros(1)
    new_weight, new_bias = FOLDS[node.op_type](node, weight, old_bias, factor)
    if not bias:
        del node.input[2:]
        node.input.append(norm.input[2])
    for name, array in zip(node.input[1:], (new_weight, new_bias + offset - mean * factor), strict=True):
        constants[name].CopyFrom(numpy_helper.from_array(array.astype(weights[4].dtype), name))
    node.output[0] = norm.output[0]


def _is_inference_norm(node: onnx.NodeProto) -> bool:
    training = any(item.name == "training_mode" and item.i for item in node.attribute)
    return node.op_type == "BatchNormalization" and not training


def _is_row(bias: Array) -> bool:
    """Whether a bias has one value a channel, or one for all: a Gemm's may also vary with the row."""
    return bias.size == (bias.shape[-1] if bias.ndim else 1)


def _drop_unused(graph: onnx.GraphProto) -> None:
    """Remove the initializers and the types of values that are no more."""
    used = {name for node in graph.node for name in (*node.input, *node.output)}
    used.update(value.name for value in graph.output)
    for field in (graph.initializer, graph.value_info):
        for item in [item for item in field if item.name not in used]:
            field.remove(item)
