"""The first piece of the step: the network, written into a graph in one of its forms."""

from __future__ import annotations

from collections.abc import Mapping

import onnx_ir as ir

from cnnc.bundle import ADAPTED
from cnnc.ir import Builder, Network, type_of
from cnnc.ir.transcribe import Rewrite, transcribe


def forward(
    builder: Builder,
    network: Network,
    image: ir.Value,
    weights: Mapping[str, ir.Value],
    form: Mapping[str, Rewrite],
) -> list[ir.Value]:
    """Emit the network for `image`; return its outputs.

    `weights` are its parameters and running statistics by name, adapters added (see `adapted`); `form` says
    which operators are written otherwise than they stand.
    """
    inputs = network.graph.inputs
    bindings = {inputs[0]: image, **{value: weights[str(value.name)] for value in inputs[1:]}}
    values = transcribe(network.graph, builder, bindings, form)
    return [values[output] for output in network.outputs]


def adapted(builder: Builder, network: Network, state: Mapping[str, ir.Value]) -> dict[str, ir.Value]:
    """The state with each adapter added to its weight, as ``adapted/<weight>``."""
    values = dict(state)
    for adapter in network.adapters:
        weight = state[adapter.weight]
        with builder.scope(ADAPTED + adapter.weight):
            product = builder.op("MatMul", state[adapter.left], state[adapter.right])
            change = builder.reshape(product, type_of(weight).dims)
            if adapter.scale != 1.0:
                change = builder.op("Mul", change, adapter.scale)
            name = ADAPTED + adapter.weight
            values[adapter.weight] = builder.op("Add", weight, change, name=name)
    return values
