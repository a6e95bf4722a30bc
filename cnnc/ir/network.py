"""The forward network: what every front end (the DSL, a foreign model) hands to the compiler."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import numpy.typing as npt
import onnx_ir as ir

from cnnc.ir.types import TensorType

Kind = Literal["weight", "bias", "normalization", "statistic"]


@dataclass(frozen=True)
class Parameter:
    """A tensor of the network that is state: trained, or (a `statistic`) updated by the forward pass.

    `initial` describes its first value, see `cnnc.initial`. Weight decay applies to the kind ``weight``. One
    that is not `trainable` stays as it is: a frozen statistic too.
    """

    name: str
    type: TensorType
    kind: Kind
    initial: dict[str, Any]
    trainable: bool = True


@dataclass(frozen=True)
class Adapter:
    """A low-rank addition to a parameter: `weight` + `scale` · (`left` · `right`), in the weight's shape.

    `left` [first axis, rank] and `right` [rank, all other axes] are parameters, but no inputs of the graph.
    """

    weight: str
    left: str
    right: str
    scale: float


@dataclass
class Network:
    """A forward graph in inference form: standard ONNX of our opset, one output or more.

    `graph.inputs` are the data input and then one input for each parameter, under its name. Batch
    normalisation stands as BatchNormalization and dropout as Dropout, both in inference form: the compiler
    gives them their training form. Nodes carry the user's file and line as ``cnnc.where``. `values` holds the
    parameters whose initial value is ``stored``. Where `adapters` have a weight, the graph's input of its
    name stands for the sum.
    """

    graph: ir.Graph
    parameters: dict[str, Parameter] = field(default_factory=dict)
    values: dict[str, npt.NDArray[Any]] = field(default_factory=dict)
    adapters: list[Adapter] = field(default_factory=list)

    @property
    def input(self) -> ir.Value:
        """The data input."""
        return self.graph.inputs[0]

    @property
    def output(self) -> ir.Value:
        """What the loss sees: logits, or values; of several outputs the first."""
        return self.graph.outputs[0]

    @property
    def outputs(self) -> tuple[ir.Value, ...]:
        """What the losses see, in the order of the heads."""
        return tuple(self.graph.outputs)
