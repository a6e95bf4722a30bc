"""The learning rate of any step, as the training graph itself computes it, whatever the schedule."""

from __future__ import annotations

import onnx
from onnx import helper

from cnnc.bundle import Bundle
from cnnc.runtime.providers import choose, open_session

NODE, STEP, SCALE = "update/learning_rate", "step", "lr_scale"


class LearningRate:
    """The part of train.onnx between the step counter, ``lr_scale`` and the learning rate, ready to run."""

    def __init__(self, bundle: Bundle) -> None:
        """Raises LookupError where the graph computes no learning rate from these alone."""
        model = onnx.load(bundle.graph("train.onnx"))
        part = _slice(model)
        self._session = open_session(part.SerializeToString(), choose("cpu"), 1)
        self._names = {value.name for value in part.graph.input}

    def at(self, step: int, scale: float = 1.0) -> float:
        """The rate of the step after `step` finished ones, times `scale`."""
        import numpy as np

        feeds = {STEP: np.array(step, np.int64), SCALE: np.array(scale, np.float32)}
        (rate,) = self._session.run(None, {name: feeds[name] for name in self._names})
        return float(rate)


def _slice(model: onnx.ModelProto) -> onnx.ModelProto:
    graph = model.graph
    makers = {name: node for node in graph.node for name in node.output}
    wanted = next((node for node in graph.node if node.name == NODE), None)
    if wanted is None:
        raise LookupError(f"the graph has no node {NODE}")
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    needed: set[str] = set()
    waiting, inputs = [wanted.output[0]], set()
    while waiting:
        name = waiting.pop()
        if name in makers and makers[name].name not in needed:
            needed.add(makers[name].name)
            waiting += [each for each in makers[name].input if each]
        elif name not in makers and name not in tensors:
            inputs.add(name)
    if not inputs <= {STEP, SCALE}:
        raise LookupError(f"the learning rate depends on {', '.join(sorted(inputs - {STEP, SCALE}))}")
    nodes = [node for node in graph.node if node.name in needed]
    part = helper.make_graph(
        nodes,
        "learning_rate",
        [value for value in graph.input if value.name in inputs],
        [helper.make_empty_tensor_value_info(wanted.output[0])],
        [tensor for name, tensor in tensors.items() if any(name in node.input for node in nodes)],
    )
    sliced = helper.make_model(part, opset_imports=model.opset_import, ir_version=model.ir_version)
    sliced.functions.extend(model.functions)
    return sliced
