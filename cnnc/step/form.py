"""The two forms of a forward network: in training, batch statistics and dropout; in inference, neither.

In training a ReLU also moves behind the max pool that follows it. Both are monotone, so the values are the
same, and the gradients too; its mask then costs a quarter (for a 2×2 pool), forward and backward.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

import onnx_ir as ir

from cnnc.ir import Builder
from cnnc.ir.transcribe import Rewrite, copy_node


@dataclass
class TrainingForm:
    """Rewrites BatchNormalization and Dropout to what they do in training.

    `random` gives the values (seed, step) that dropout masks depend on; it is asked only where a network
    has dropout. `frozen` names running statistics that do not move: their layers keep their inference form.
    `next_statistics` collects, for each other running statistic, its next value.
    """

    random: Callable[[], tuple[ir.Value, ir.Value]]
    frozen: Collection[str] = ()
    next_statistics: dict[ir.Value, ir.Value] = field(default_factory=dict)

    @property
    def rewrites(self) -> dict[str, Rewrite]:
        """For `cnnc.ir.transcribe`."""
        return {
            "BatchNormalization": self._batch_normalization,
            "Dropout": self._dropout,
            "Relu": self._relu,
            "MaxPool": self._max_pool,
        }

    def _batch_normalization(
        self, builder: Builder, node: ir.Node, inputs: Sequence[ir.Value | None]
    ) -> Sequence[ir.Value]:
        x, scale, bias, mean, var = inputs
        assert mean is not None
        assert var is not None
        if mean.name in self.frozen and var.name in self.frozen:
            return copy_node(builder, node, inputs)
        with _same_place(builder, node):
            y, next_mean, next_var, _, _ = builder.op(
                "BatchNormalizationTraining",
                x,
                scale,
                bias,
                self.next_statistics.get(mean, mean),  # a layer called twice moves them twice
                self.next_statistics.get(var, var),
                name=str(node.name),
                epsilon=_float(node, "epsilon", 1e-5),
                momentum=_float(node, "momentum", 0.9),
            )
        self.next_statistics[mean] = next_mean
        self.next_statistics[var] = next_var
        return [y]

    def _dropout(
        self, builder: Builder, node: ir.Node, inputs: Sequence[ir.Value | None]
    ) -> Sequence[ir.Value]:
        x = inputs[0]
        assert x is not None
        ratio = dropout_ratio(node)
        if ratio == 0.0:
            return [x]
        seed, step = self.random()
        # The stream depends on the node's name alone, so adding a layer elsewhere leaves its masks alone.
        stream = zlib.crc32(str(node.name).encode()) & 0x7FFFFFFF
        with _same_place(builder, node):
            mask = builder.op(
                "DropoutMask", x, seed, step, name=f"{node.name}/mask", ratio=ratio, stream=stream
            )
            return [builder.op("Mul", x, mask, name=str(node.name))]

    def _relu(self, builder: Builder, node: ir.Node, inputs: Sequence[ir.Value | None]) -> Sequence[ir.Value]:
        if _only_pooled(node):
            assert inputs[0] is not None
            return [inputs[0]]
        return copy_node(builder, node, inputs)

    def _max_pool(
        self, builder: Builder, node: ir.Node, inputs: Sequence[ir.Value | None]
    ) -> Sequence[ir.Value]:
        outputs = copy_node(builder, node, inputs)
        assert node.inputs[0] is not None
        relu = node.inputs[0].producer()
        if relu is None or relu.op_type != "Relu" or not _only_pooled(relu):
            return outputs
        with _same_place(builder, relu):
            return [builder.op("Relu", outputs[0], name=str(relu.name))]


def _only_pooled(relu: ir.Node) -> bool:
    """Whether everything that reads a ReLU is a max pool without indices."""
    output = relu.outputs[0]
    readers = [user for user, _ in output.uses()]
    return (
        bool(readers)
        and not output.is_graph_output()
        and all(user.op_type == "MaxPool" and len(user.outputs) == 1 for user in readers)
    )


def without_dropout(builder: Builder, node: ir.Node, inputs: Sequence[ir.Value | None]) -> Sequence[ir.Value]:
    """The inference form of a Dropout node: nothing."""
    x = inputs[0]
    assert x is not None
    return [x]


INFERENCE_FORM: dict[str, Rewrite] = {"Dropout": without_dropout}


def dropout_ratio(node: ir.Node) -> float:
    """The share of elements that a Dropout node drops (ONNX's default is 0.5)."""
    value = node.inputs[1] if len(node.inputs) > 1 else None
    if value is None:
        return 0.5
    tensor = ir.convenience.get_const_tensor(value)
    if tensor is None:
        raise ValueError(f"the ratio of Dropout '{node.name}' is not a constant")
    return float(tensor.numpy())


def _float(node: ir.Node, name: str, default: float) -> float:
    return float(node.attributes[name].as_float()) if name in node.attributes else default


def _same_place(builder: Builder, node: ir.Node) -> AbstractContextManager[None]:
    """The scope of a node that replaces `node`: it keeps the user's line and the layer."""
    kept = {key: node.metadata_props.get(f"cnnc.{key}", "") for key in ("where", "layer")}
    return builder.scope(str(node.name), **kept)
