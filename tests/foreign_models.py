"""Running what the compiler made of foreign models, and making such models."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import onnxruntime as ort

from cnnc.bundle import NEXT
from cnnc.compiler import Compiled

Arrays = dict[str, Any]


def session(model: bytes) -> ort.InferenceSession:
    """A model on ONNX Runtime, one thread."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def trainer(compiled: Compiled) -> Callable[[Mapping[str, Any], Any, Any], tuple[Arrays, Arrays]]:
    """A function from state, image and target to a step's outputs and the next state."""
    train, manifest = session(compiled.graphs["train.onnx"]), compiled.manifest
    names = [output.name for output in train.get_outputs()]
    fixed = {"lr_scale": np.array(1.0, np.float32), "seed": np.array(0)}

    def step(state: Mapping[str, Any], image: Any, target: Any) -> tuple[Arrays, Arrays]:
        feeds = {**fixed, **state, manifest.input.name: image, manifest.target.name: target}
        found = train.run(None, {value.name: feeds[value.name] for value in train.get_inputs()})
        outputs = dict(zip(names, found, strict=True))
        return outputs, {n.removeprefix(NEXT): v for n, v in outputs.items() if n.startswith(NEXT)}

    return step


def inference(compiled: Compiled) -> Callable[[Any], Any]:
    """infer.onnx as a function."""
    infer, name = session(compiled.graphs["infer.onnx"]), compiled.manifest.input.name
    return lambda image: infer.run(None, {name: image})[0]
