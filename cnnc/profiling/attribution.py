"""Which of the user's layers, and which part of the step, a node of a graph belongs to.

The builder's metadata say it: a forward node names its layer (``cnnc.layer``), a gradient node the forward
node it differentiates and the value whose gradient it is (``cnnc.forward``, ``cnnc.wrt``), a node of the
update its parameter (``cnnc.parameter``).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, get_args

import onnx

from cnnc.profiling.inline import all_nodes

Part = Literal["forward", "recomputation", "input gradient", "weight gradient", "update", "loss"]
PARTS: tuple[Part, ...] = get_args(Part)
"""In the order of a step. The gradient of the loss and the metrics count as its part."""

_SHARED = {"update": "update", "clip": "update", "accumulate": "update", "average": "update",
           "chunk": "chunks", "chunks": "chunks"}  # fmt: skip
_LOSS = ("loss", "metrics")
_TAKE_IN = {"Conv", "ConvTranspose", "Gemm", "MatMul"}
"""Operators that ONNX Runtime fuses with what follows: an addition, a normalisation, an activation."""


@dataclass(frozen=True)
class Origin:
    """Where a node comes from: a layer's name, or ``loss``, ``metrics``, ``update``, ``chunks``."""

    layer: str
    part: Part


class Origins:
    """The origins of the nodes of `graph`, whose trained parameters are called `parameters`.

    `layers` are the names in the order of the forward pass.
    """

    def __init__(self, graph: onnx.GraphProto, parameters: Collection[str]) -> None:
        self._all, self._parameters = list(all_nodes(graph)), parameters
        self._metadata = {
            node.name: {item.key.removeprefix("cnnc."): item.value for item in node.metadata_props}
            for node in self._all
        }
        self._partial = self._partials()
        self.by_node: dict[str, Origin] = {}
        for node in self._all:
            if (origin := self._origin(node)) is not None:
                self.by_node[node.name] = origin
        found = (o.layer for o in self.by_node.values() if o.part == "forward")
        self.layers = tuple(dict.fromkeys(found))

    def find(self, name: str, op_type: str = "") -> Origin | None:
        """The origin of the node of that name, or of the one whose name it continues, as fusions do.

        ``conv1_nchwc`` and ``grad/conv1/weight/MatMul/MatmulTransposeFusion/`` are such names.
        A convolution or product of `op_type` that took what follows it into itself is called after the last
        of those: it belongs to the layer of the first.
        """
        while name and name not in self.by_node:
            name = name[: max(name.rfind("/"), name.rfind("_"), 0)]
        origin = self.by_node.get(name)
        wanted = op_type.removeprefix("Fused")
        if origin is None or origin.part != "forward" or wanted not in _TAKE_IN:
            return origin
        node: onnx.NodeProto | None = self._nodes[name]
        while node is not None and node.op_type != wanted and node.input:
            node = self._nodes.get(self._producer.get(node.input[0], ""))
        return self.by_node.get(node.name, origin) if node is not None else origin

    def _origin(self, node: onnx.NodeProto) -> Origin | None:
        metadata, scope = self._metadata[node.name], node.name.split("/")[0]
        if parameter := metadata.get("parameter"):
            return Origin(self._user.get(parameter, "update"), "update")
        if again := metadata.get("recomputes"):
            return Origin(self._layer(again), "recomputation")
        if forward := metadata.get("forward"):
            layer = self._layer(forward)
            return Origin(layer, "loss" if layer in _LOSS else self._partial.get(node.name, "input gradient"))
        if wrt := metadata.get("wrt"):
            layer = self._layer(self._producer.get(wrt, "")) or self._user.get(wrt, "")
            return Origin(layer, self._partial.get(node.name, "input gradient")) if layer else None
        if scope in _SHARED and "layer" not in metadata:
            return Origin(_SHARED[scope], "update")
        layer = self._layer(node.name)
        return Origin(layer, "loss" if layer in _LOSS else "forward") if layer else None

    def _layer(self, forward: str) -> str:
        """The layer of a forward node: the one in its metadata, else its own name."""
        metadata = self._metadata.get(forward)
        if metadata is None:  # a tuned step has other nodes in its place
            return forward if forward.startswith("/") else forward.split("/")[0]
        scope = forward.split("/")[0]
        return metadata.get("layer") or (scope if scope in _LOSS else forward)

    def _partials(self) -> Mapping[str, Part]:
        """For each gradient node, whether it serves parameters alone.

        A node that gives both, as that of batch normalisation does, counts as input gradient. Helpers belong
        to what reads them, so the walk is from the end.
        """
        parts: dict[str, Part] = {}
        readers: dict[str, list[str]] = {}
        for node in self._all:
            for value in node.input:
                readers.setdefault(value, []).append(node.name)
        for node in reversed(self._all):
            metadata = self._metadata[node.name]
            if wrt := metadata.get("wrt", "").split():
                only = all(name in self._parameters for name in wrt)
            elif "forward" in metadata:
                users = {user for value in node.output for user in readers.get(value, ())}
                same = [u for u in users if self._metadata[u].get("forward") == metadata["forward"]]
                only = bool(same) and all(parts.get(user) == "weight gradient" for user in same)
            else:
                continue
            parts[node.name] = "weight gradient" if only else "input gradient"
        return parts

    @cached_property
    def _nodes(self) -> dict[str, onnx.NodeProto]:
        return {node.name: node for node in self._all}

    @cached_property
    def _producer(self) -> dict[str, str]:
        return {value: node.name for node in self._all for value in node.output}

    @cached_property
    def _user(self) -> dict[str, str]:
        """The layer whose forward pass reads a parameter first."""
        users: dict[str, str] = {}
        for node in self._all:
            metadata = self._metadata[node.name]
            if (
                metadata.keys() & {"forward", "wrt", "parameter", "recomputes"}
                or node.name.split("/")[0] in _SHARED
            ):
                continue
            for value in node.input:
                if value in self._parameters:
                    users.setdefault(value, self._layer(node.name))
        return users
