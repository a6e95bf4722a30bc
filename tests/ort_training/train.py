"""A training script as one writes it for onnxruntime-training 1.19: ``train.py CASE FOLDER`` prints JSON.

The tests run this file with nothing but ``onnxruntime.training`` replaced by ``cnnc.ort_training``, and
compare with what onnxruntime-training gave (``recorded.json``, written by ``record.py``).
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from onnx import ModelProto, TensorProto, helper, numpy_helper
from onnxruntime.training import artifacts
from onnxruntime.training.api import CheckpointState, LinearLRScheduler, Module, Optimizer

CASES = {
    "cross_entropy_adamw": ("CrossEntropyLoss", "AdamW", 0.02),
    "cross_entropy_sgd": ("CrossEntropyLoss", "SGD", 0.1),
    "mse_adamw": ("MSELoss", "AdamW", 0.02),
    "bce_sgd": ("BCEWithLogitsLoss", "SGD", 0.5),
    "l1_adamw": ("L1Loss", "AdamW", 0.02),
    "batch_norm": ("CrossEntropyLoss", "SGD", 0.1),
}
CLASSES = 3


def forward_model(rng: np.random.Generator, norm: Mapping[str, float]) -> ModelProto:
    """Conv, ReLU (and batch normalisation), max pool and a dense layer, with the output "output"."""

    def normal(*shape: int) -> np.ndarray:
        return np.asarray(0.3 * rng.standard_normal(shape), np.float32)

    weights = {
        "conv.weight": normal(4, 1, 3, 3),
        "conv.bias": normal(4),
        "fc.weight": normal(CLASSES, 36),
        "fc.bias": normal(CLASSES),
    }
    nodes = [helper.make_node("Conv", ["image", "conv.weight", "conv.bias"], ["conv"], pads=[1, 1, 1, 1])]
    if norm:
        weights |= {f"bn.{name}": np.full(4, value, np.float32) for name, value in norm.items()}
        nodes.append(
            helper.make_node(
                "BatchNormalization",
                ["conv", *(f"bn.{name}" for name in norm)],
                ["bn", "bn.next_mean", "bn.next_var"],
                training_mode=1,
            )
        )
    nodes += [
        helper.make_node("Relu", [nodes[-1].output[0]], ["relu"]),
        helper.make_node("MaxPool", ["relu"], ["pool"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Flatten", ["pool"], ["flat"]),
        helper.make_node("Gemm", ["flat", "fc.weight", "fc.bias"], ["output"], transB=1),
    ]
    graph = helper.make_graph(
        nodes,
        "network",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 1, 6, 6])],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, ["batch", CLASSES])],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def main(case: str, folder: Path) -> dict[str, Any]:
    loss, optim, rate = CASES[case]
    rng = np.random.default_rng(0)
    norm = {"scale": 1.0, "shift": 0.0, "mean": 0.0, "var": 1.0} if case == "batch_norm" else {}
    model = forward_model(rng, norm)
    images = rng.standard_normal((20, 8, 1, 6, 6)).astype(np.float32)
    targets = rng.random((20, 8, CLASSES)).astype(np.float32)
    if loss == "CrossEntropyLoss":
        targets = targets.argmax(axis=2)

    artifacts.generate_artifacts(
        model,
        requires_grad=["conv.weight", "fc.weight", "fc.bias", *(["bn.scale", "bn.shift"] if norm else [])],
        frozen_params=["conv.bias", *(["bn.mean", "bn.var"] if norm else [])],
        loss=artifacts.LossType[loss],
        optimizer=artifacts.OptimType[optim],
        artifact_directory=folder,
        additional_output_names=["output"],
    )
    evaluation = None if norm else folder / "eval_model.onnx"

    def begin(checkpoint: str) -> tuple[CheckpointState, Module, Optimizer]:
        state = CheckpointState.load_checkpoint(folder / checkpoint)
        module = Module(folder / "training_model.onnx", state, evaluation)
        return state, module, Optimizer(folder / "optimizer_model.onnx", module)

    state, module, optimizer = begin("checkpoint")
    assert optimizer.get_learning_rate() == np.float32(1e-3)
    scheduler = LinearLRScheduler(optimizer, 6, 6, rate)  # the warm-up alone
    names = [module.input_names(), module.output_names()[1:]]
    losses, rates, evaluated = [], [], []
    for step in range(10):
        if step == 5:  # stop, and go on from a checkpoint
            state.properties["step"] = step
            CheckpointState.save_checkpoint(state, folder / "middle", include_optimizer_state=True)
            state, module, optimizer = begin("middle")
            assert state.properties["step"] == step
            optimizer.set_learning_rate(rate)
        module.train()
        for batch in (2 * step, 2 * step + 1):  # gradients add up over two batches
            loss, output = module(images[batch], targets[batch])
            losses.append(float(loss))
        gradient = state.parameters["fc.bias"].grad.copy()
        rates.append(optimizer.get_learning_rate())
        optimizer.step()
        module.lazy_reset_grad()
        if step < 5:
            scheduler.step()
        if evaluation:
            module.eval()
            evaluated.append(float(module(images[0], targets[0])[0]))

    flat = module.get_contiguous_parameters().numpy()
    trained = module.get_contiguous_parameters(trainable_only=True)
    sizes = [module.get_parameters_size(), module.get_parameters_size(False)]
    if evaluation:
        module.export_model_for_inferencing(folder / "inference.onnx", ["output"])
    module.copy_buffer_to_parameters(trained)
    return {
        "names": names,
        "parameters": [(name, parameter.requires_grad) for name, parameter in state.parameters],
        "sizes": sizes,
        "losses": losses,
        "rates": rates,
        "evaluated": evaluated,
        "gradient": gradient.tolist(),
        "output": output.tolist(),
        "flat": flat.tolist(),
        "bias": state.parameters["fc.bias"].data.tolist(),
    }


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1], Path(sys.argv[2]))))
