"""Activations that the backward pass computes again instead of keeping them; Chen et al., "Training Deep Nets
with Sublinear Memory Cost", 2016, for what is cheap: elementwise operators, normalised values, dropout masks.

A value is computed again from others that are kept in any case, such as the outputs of convolutions. ONNX
Runtime would merge the copy with the original, or run it early, if nothing held it back: its inputs pass a
Reshape to the shape they have, which is read off the gradient that arrives there. A Reshape moves no data.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import onnx_ir as ir

from cnnc.ir import Builder, dims_of, is_static
from cnnc.ir.transcribe import copy_node

# fmt: off
CHEAP = frozenset({
    "Abs", "Add", "BatchNormalizationTraining", "Celu", "Clip", "Div", "DropoutMask", "Elu", "Erf", "Exp",
    "Flatten", "HardSigmoid", "HardSwish", "Identity", "LeakyRelu", "Log", "Max", "Min", "Mish", "Mul", "Neg",
    "PRelu", "Reciprocal", "Relu", "Reshape", "Selu", "Shrink", "Sigmoid", "Softplus", "Softsign", "Sqrt",
    "Sub", "Sum", "Tanh", "ThresholdedRelu",
})
# fmt: on
"""Operators of the forward pass that cost no more than a few passes over their output."""
MOST_NODES = 8
"""A value that takes more nodes than these to compute again is kept."""

_NORMALISED = "BatchNormalizationTraining"


def recompute(builder: Builder, forward: Sequence[ir.Node]) -> list[str]:
    """Let backward nodes read copies of cheap activations; return the names of what is no longer kept.

    `forward` are the nodes of network and loss, all others of the graph those of the backward pass, in order.
    """
    return _Recomputation(builder, forward).run()


@dataclass
class _Recomputation:
    builder: Builder
    forward: Sequence[ir.Node]

    def run(self) -> list[str]:
        self._place = {node: index for index, node in enumerate(self.builder.graph)}
        self._is_forward = set(self.forward)
        values = [value for node in self.forward for value in node.outputs]
        read = [value for value in values if self._is_large(value) and self._backward_readers(value)]
        self._kept = {value for value in read if not self._is_cheap(value)}
        chosen = []
        for value in read:
            if value in self._kept:
                continue
            nodes = self._closure(value)
            if nodes is None or self._gradient(value) is None:
                self._kept.add(value)
            else:
                chosen.append((value, nodes))
        for value, nodes in chosen:
            self._replace(value, nodes)
        if chosen:
            self.builder.graph.sort()
        return [str(value.name) for value, _ in chosen]

    def _closure(self, value: ir.Value) -> list[ir.Node] | None:
        """The nodes that compute `value` from kept ones, in order; None where that can't be, or is dear."""
        found: dict[ir.Node, None] = {}
        pending = [value]
        while pending:
            current = pending.pop()
            node = current.producer()
            if current in self._kept or node is None or not self._is_large(current):
                continue
            if node not in self._is_forward or not self._is_cheap(current):
                return None
            found[node] = None
            if len(found) > MOST_NODES:
                return None
            pending.extend(v for v in node.inputs if v is not None)
        return sorted(found, key=self._place.__getitem__)

    def _replace(self, value: ir.Value, nodes: Sequence[ir.Node]) -> None:
        """Append copies of `nodes` behind the gradient; the backward pass then reads that of `value`."""
        gradient = self._gradient(value)
        assert gradient is not None
        readers = self._backward_readers(value)
        copies: dict[ir.Value, ir.Value] = {}
        for node in nodes:
            where = node.metadata_props.get("cnnc.where", "")
            with self.builder.scope(f"recompute/{node.name}", recomputes=str(node.name), where=where):
                inputs = [self._again(v, copies, gradient) for v in node.inputs]
                if node.op_type == _NORMALISED:
                    copies[node.outputs[0]] = self._normalised(node, inputs)
                else:
                    (copies[node.outputs[0]],) = self._copied(node, inputs)
        for reader in readers:
            for index, given in enumerate(reader.inputs):
                if given is value:
                    reader.replace_input_with(index, copies[value])

    def _again(
        self, value: ir.Value | None, copies: dict[ir.Value, ir.Value], gradient: ir.Value
    ) -> ir.Value | None:
        """What a copy reads in place of `value`: another copy, or what is kept, held back by the gradient."""
        if value is None or value in copies or not self._is_large(value):
            return None if value is None else copies.get(value, value)
        dims, builder = dims_of(value), self.builder
        if dims == dims_of(gradient):
            shape = builder.op("Shape", gradient)
        else:
            rows = builder.op("Shape", gradient, start=0, end=1)
            shape = builder.op("Concat", rows, [int(d) for d in dims[1:]], axis=0)
        copies[value] = builder.op("Reshape", value, shape, dims=dims)
        return copies[value]

    def _copied(self, node: ir.Node, inputs: Sequence[ir.Value | None]) -> Sequence[ir.Value]:
        outputs = copy_node(self.builder, node, inputs)
        copy = self.builder.rename(outputs[0], f"recompute/{node.name}").producer()
        assert copy is not None
        copy.metadata_props.pop("cnnc.layer", None)  # it is no part of the forward pass
        copy.metadata_props["cnnc.recomputes"] = str(node.name)
        return outputs

    def _normalised(self, node: ir.Node, inputs: Sequence[ir.Value | None]) -> ir.Value:
        """Batch normalisation with the statistics that the forward pass found: the same numbers."""
        x, scale, bias = inputs[:3]
        mean, inv_std = node.outputs[3:]
        assert x is not None
        op, channels = self.builder.op, [-1, *[1] * (len(dims_of(x)) - 2)]
        centred = op("Sub", x, op("Reshape", mean, channels))
        factor = op("Reshape", op("Mul", inv_std, scale), channels)
        y: ir.Value = op("Add", op("Mul", centred, factor), op("Reshape", bias, channels))
        return self.builder.rename(y, f"recompute/{node.name}")

    def _gradient(self, value: ir.Value) -> ir.Value | None:
        """The gradient that arrives where `value` is first read again, if its batch is that of `value`."""
        first = min(self._backward_readers(value), key=self._place.__getitem__)
        for given in first.inputs:
            producer = None if given is None else given.producer()
            if given is None or producer is None or producer in self._is_forward:
                continue
            if self._is_large(given) and dims_of(given)[0] == dims_of(value)[0]:
                return given
        return None

    def _backward_readers(self, value: ir.Value) -> list[ir.Node]:
        return [user for user, _ in value.uses() if user not in self._is_forward and user in self._place]

    def _is_cheap(self, value: ir.Value) -> bool:
        node = value.producer()
        return node is not None and node.op_type in CHEAP and value.index() == 0

    def _is_large(self, value: ir.Value) -> bool:
        """Whether it is an activation: floats, a symbolic batch, and sizes that are known beside it."""
        if value.shape is None or value.dtype is None or not value.dtype.is_floating_point():
            return False
        dims = dims_of(value)
        return len(dims) > 1 and isinstance(dims[0], str) and is_static(dims[1:])
