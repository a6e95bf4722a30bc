"""What `cnnc summary` shows of a bundle: its layers, their cost, and what computes their gradients.

All of it is read from train.onnx, whose nodes keep in their metadata the layer (``cnnc.layer``) or the
forward node (``cnnc.forward``) they belong to.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import groupby
from math import prod
from typing import Any

import onnx

from cnnc.bundle import ADAPTED, Bundle, FunctionSpec, TensorSpec
from cnnc.errors import BundleError
from cnnc.opset import GRAD_DOMAIN

Dims = tuple[int | str, ...]

MULTIPLY_ADDS: dict[str, Callable[[Sequence[int], Sequence[int]], int]] = {
    "Conv": lambda weight, output: prod(weight[1:]) * prod(output),
    "Gemm": lambda weight, output: prod(weight),
}
"""Multiply-adds for one example, from the shapes of the weight and of one example's output."""

_BOOKKEEPING = {"Constant", "Shape"}


@dataclass(frozen=True)
class LayerSummary:
    """One call of a layer.

    `operators` are those of its forward pass and `output` is the shape of its result. `parameters` counts the
    elements of its parameters, trained or not, that no earlier call used; `multiply_adds` are those of its
    convolutions and matrix products in the forward pass of one example. `functions` are its gradient ops
    with their bodies, `standard` the operators of its backward pass that are standard ONNX as they stand.
    """

    name: str
    where: str
    operators: tuple[str, ...]
    output: Dims
    parameters: int
    multiply_adds: int
    functions: tuple[FunctionSpec, ...]
    standard: tuple[str, ...]


@dataclass(frozen=True)
class NetworkSummary:
    """A bundle's network: its layers in the order of the forward pass, and the functions of loss and update.

    `parameters` counts elements that are state of the network itself: trained parameters, frozen ones and
    running statistics; `trained` the first kind alone. `augment` says by what the examples of a step are
    changed and `average` which decay a moving average has, as the manifest does.
    """

    name: str
    input: TensorSpec
    output: TensorSpec
    layers: tuple[LayerSummary, ...]
    loss: tuple[FunctionSpec, ...]
    update: tuple[FunctionSpec, ...]
    parameters: int
    trained: int
    augment: tuple[dict[str, Any], ...] = ()
    average: float | None = None

    @property
    def flops(self) -> int:
        """Floating-point operations of the forward pass of one example: two for each multiply-add."""
        return 2 * sum(layer.multiply_adds for layer in self.layers)

    def record(self) -> dict[str, Any]:
        """The same as one JSON object."""
        return {**asdict(self), "flops": self.flops}


def summarise(bundle: Bundle) -> NetworkSummary:
    """Read the summary of a bundle. Raises BundleError where train.onnx can't be read."""
    path = bundle.graph("train.onnx")
    try:
        graph = onnx.load(path).graph
    except Exception as error:  # protobuf's DecodeError is not part of onnx's interface
        raise BundleError(f"this graph can't be read: {error}.", where=str(path)) from error
    return _Reader(bundle, graph).read()


@dataclass
class _Reader:
    bundle: Bundle
    graph: onnx.GraphProto

    def read(self) -> NetworkSummary:
        manifest = self.bundle.manifest
        own = manifest.entries("parameter", "buffer")
        functions = manifest.functions
        self._counted: set[str] = set()
        forward = [node for node in self._nodes if "cnnc.layer" in self._metadata(node)]
        calls = groupby(forward, key=lambda node: self._metadata(node)["cnnc.layer"])
        return NetworkSummary(
            name=manifest.name,
            input=manifest.input,
            output=manifest.output,
            layers=tuple(self._layer(name, list(nodes)) for name, nodes in calls),
            loss=tuple(f for f in functions if f.node.startswith(("loss/", "grad/loss/"))),
            update=tuple(f for f in functions if f.node.startswith("update/")),
            parameters=sum(entry.size for entry in own),
            trained=sum(entry.size for entry in own if entry.offset is not None),
            augment=manifest.augment,
            average=manifest.average,
        )

    def _layer(self, name: str, nodes: list[onnx.NodeProto]) -> LayerSummary:
        backward = [node for forward in nodes for node in self._backward.get(forward.name, ())]
        functions = [self._functions[n.name] for n in (*nodes, *backward) if n.domain == GRAD_DOMAIN]
        standard = (n.op_type for n in backward if n.domain != GRAD_DOMAIN and n.op_type not in _BOOKKEEPING)
        inputs = {value for node in nodes for value in node.input} & self._sizes.keys()
        new = inputs - self._counted
        self._counted |= new
        return LayerSummary(
            name=name,
            where=self._metadata(nodes[0]).get("cnnc.where", ""),
            operators=tuple(self._operator(node) for node in nodes),
            output=self._shapes.get(nodes[-1].output[0], ()),
            parameters=sum(self._sizes[value] for value in new),
            multiply_adds=sum(map(self._multiply_adds, nodes)),
            functions=tuple(functions),
            standard=tuple(dict.fromkeys(standard)),
        )

    def _operator(self, node: onnx.NodeProto) -> str:
        function = self._functions.get(node.name)
        return function.op if function else str(node.op_type)

    def _multiply_adds(self, node: onnx.NodeProto) -> int:
        if node.op_type not in MULTIPLY_ADDS:
            return 0
        weight, output = self._shapes[node.input[1]], self._shapes[node.output[0]][1:]
        static = [[d for d in dims if isinstance(d, int)] for dims in (weight, output)]
        return MULTIPLY_ADDS[node.op_type](*static)

    def _metadata(self, node: onnx.NodeProto) -> Mapping[str, str]:
        return {item.key: item.value for item in node.metadata_props}

    @cached_property
    def _nodes(self) -> list[onnx.NodeProto]:
        return [node for graph in self._graphs for node in graph.node]

    @cached_property
    def _graphs(self) -> list[onnx.GraphProto]:
        """The graph, and the bodies in it, where a batch goes in chunks."""
        inner = (a.g for node in self.graph.node for a in node.attribute if a.HasField("g"))
        return [self.graph, *inner]

    @cached_property
    def _backward(self) -> dict[str, list[onnx.NodeProto]]:
        """The nodes of the backward pass by the forward node they differentiate."""
        found: dict[str, list[onnx.NodeProto]] = {}
        for node in self._nodes:
            if forward := self._metadata(node).get("cnnc.forward"):
                found.setdefault(forward, []).append(node)
        return found

    @cached_property
    def _functions(self) -> dict[str, FunctionSpec]:
        return {function.node: function for function in self.bundle.manifest.functions}

    @cached_property
    def _sizes(self) -> dict[str, int]:
        manifest = self.bundle.manifest
        sizes = {entry.name: entry.size for entry in manifest.entries("parameter", "buffer")}
        for adapter in manifest.adapters:
            own = (adapter.weight, adapter.left, adapter.right)
            sizes[ADAPTED + adapter.weight] = sum(sizes[name] for name in own)
        return sizes

    @cached_property
    def _shapes(self) -> dict[str, Dims]:
        return {
            value.name: tuple(
                dim.dim_param if dim.HasField("dim_param") else dim.dim_value
                for dim in value.type.tensor_type.shape.dim
            )
            for graph in self._graphs
            for value in (*graph.input, *graph.value_info, *graph.output)
        }
