"""onnxruntime-training 1.19.2, the last release: its gradient builder, Module and Optimizer.

It has Adam, but no momentum: AdamW whose second moment stays zero (β₂ = 1, ε = 1, no correction) makes
p ← p - rate · m with m ← μ · m + (1 - μ) · g, which at the rate / (1 - μ) is SGD with momentum μ. Running
statistics stay as they are: its training API updates nothing but trained parameters.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.training import artifacts, onnxblock
from onnxruntime.training.api import CheckpointState, Module, Optimizer

from benchmarks.architectures import (
    Adam,
    BatchNorm,
    Conv,
    Dense,
    Flatten,
    GlobalAvgPool,
    Layers,
    MaxPool,
    Momentum,
    ReLU,
    Residual,
)
from benchmarks.workers.protocol import Array, Job, Step, serve

OPSET, IR_VERSION = 17, 9
"""What this release reads; newer ones of the onnx package would write more."""


class Graph:
    """The forward graph in training mode, node by node."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []

    def emit(self, op: str, *inputs: str, more: int = 0, **attributes: Any) -> str:
        outputs = [f"{op}_{len(self.nodes)}_{i}" for i in range(1 + more)]
        self.nodes.append(helper.make_node(op, list(inputs), outputs, outputs[0], **attributes))
        return outputs[0]

    def apply(self, layers: Layers, x: str) -> str:
        for layer in layers:
            match layer:
                case Conv(_, _, kernel, stride, padding, groups, bias):
                    names = ("weight", "bias") if bias else ("weight",)
                    inputs = [f"{layer.name}.{name}" for name in names]
                    window = window_of(kernel, stride, padding)
                    x = self.emit("Conv", x, *inputs, group=groups, dilations=[1, 1], **window)
                case BatchNorm():
                    inputs = [f"{layer.name}.{w}" for w in ("weight", "bias", "running_mean", "running_var")]
                    x = self.emit("BatchNormalization", x, *inputs, more=2, epsilon=1e-5, training_mode=1)
                case Dense():
                    x = self.emit("Gemm", x, f"{layer.name}.weight", f"{layer.name}.bias")
                case MaxPool(kernel, stride, padding):
                    x = self.emit("MaxPool", x, **window_of(kernel, stride, padding))
                case ReLU():
                    x = self.emit("Relu", x)
                case GlobalAvgPool():
                    x = self.emit("Flatten", self.emit("GlobalAveragePool", x), axis=1)
                case Flatten():
                    x = self.emit("Flatten", x, axis=1)
                case Residual(body, shortcut):
                    x = self.emit("Add", self.apply(body, x), self.apply(shortcut, x))
        return x


def window_of(kernel: int, stride: int, padding: int) -> dict[str, list[int]]:
    return {"kernel_shape": [kernel] * 2, "strides": [stride] * 2, "pads": [padding] * 4}


def forward_model(job: Job, state: dict[str, Array], shape: tuple[int, ...]) -> onnx.ModelProto:
    graph = Graph()
    logits = graph.apply(job.architecture.layers, "image")
    tensor = helper.make_tensor_value_info
    proto = helper.make_graph(
        graph.nodes,
        job.network,
        [tensor("image", TensorProto.FLOAT, shape)],
        [tensor(logits, TensorProto.FLOAT, (shape[0], job.architecture.classes))],
        [numpy_helper.from_array(np.ascontiguousarray(array), name) for name, array in state.items()],
    )
    opsets = [helper.make_opsetid("", OPSET)]
    return helper.make_model(proto, opset_imports=opsets, ir_version=IR_VERSION)


def contestant(job: Job) -> Step:
    state, batches = job.state(), job.batches()
    block, rate = make_optimizer(job.architecture.optimizer)
    with tempfile.TemporaryDirectory() as folder:
        artifacts.generate_artifacts(
            forward_model(job, state, batches[0][0].shape),
            requires_grad=[name for name in state if ".running_" not in name],
            frozen_params=[name for name in state if ".running_" in name],
            loss=artifacts.LossType.CrossEntropyLoss,
            optimizer=block,
            artifact_directory=folder,
        )
        for file in Path(folder).glob("*_model.onnx"):
            model = onnx.load(file)
            model.ir_version = IR_VERSION
            onnx.save(model, file)
        checkpoint = CheckpointState.load_checkpoint(f"{folder}/checkpoint")
        module = Module(f"{folder}/training_model.onnx", checkpoint)
        optimizer = Optimizer(f"{folder}/optimizer_model.onnx", module)
    optimizer.set_learning_rate(rate)
    module.train()

    def train(i: int) -> float:
        loss = module(*batches[i % len(batches)])
        optimizer.step()
        module.lazy_reset_grad()
        return float(loss)

    return train


def make_optimizer(wanted: Adam | Momentum) -> tuple[onnxblock.Block, float]:
    """The optimizer and its learning rate."""
    if isinstance(wanted, Adam):
        betas = wanted.beta1, wanted.beta2
        return onnxblock.optim.AdamW(betas=betas, eps=wanted.epsilon), wanted.rate
    momentum = wanted.momentum
    block = onnxblock.optim.AdamW(bias_correction=False, betas=(momentum, 1.0), eps=1.0)
    return block, wanted.rate / (1 - momentum)


if __name__ == "__main__":
    serve(contestant, "onnxruntime-training", "numpy")
