"""The two forms of a forward network: in training, batch statistics and dropout; in inference, neither."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

import onnx_ir as ir

from cnnc.ir import Builder
from cnnc.ir.transcribe import Rewrite


@dataclass
class TrainingForm:
    """Rewrites BatchNormalization and Dropout to what they do in training.

    `random` gives the values (seed, step) that dropout masks depend on; it is asked only where a network
    has dropout. `next_statistics` collects, for each running statistic, its next value.
    """

    random: Callable[[], tuple[ir.Value, ir.Value]]
    next_statistics: dict[ir.Value, ir.Value] = field(default_factory=dict)

    @property
    def rewrites(self) -> dict[str, Rewrite]:
        """For `cnnc.ir.transcribe`."""
        return {"BatchNormalization": self._batch_normalization, "Dropout": self._dropout}

    def _batch_normalization(
        self, builder: Builder, node: ir.Node, inputs: Sequence[ir.Value | None]
    ) -> Sequence[ir.Value]:
        x, scale, bias, mean, var = inputs
        assert mean is not None
        assert var is not None
        with _same_place(builder, node):
            y, next_mean, next_var, _, _ = builder.op(
                "BatchNormalizationTraining",
                x,
                scale,
                bias,
                mean,
                var,
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
    """The scope of a node that replaces `node`: it keeps the user's line."""
    return builder.scope(str(node.name), where=node.metadata_props.get("cnnc.where", ""))
