"""From an evaluation model and a state to a model for inference."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import onnx
from onnx import helper, inliner, numpy_helper

from cnnc.bundle import Array
from cnnc.deploy.inference_graph import finished
from cnnc.errors import ModelError, UsageError, did_you_mean, os_errors_as
from cnnc.opset import OPSET
from cnnc.runtime.belongings import check_unowned
from cnnc.runtime.files import write_whole


def write_inference_model(
    evaluation: Path, state: Mapping[str, Array], outputs: Sequence[str], target: Path
) -> None:
    """Write the part of an evaluation model that gives `outputs`, with the state inside. Raises CnncError."""
    model = inliner.inline_local_functions(onnx.load(evaluation))
    graph = model.graph
    types = {value.name: value for value in (*graph.output, *graph.value_info)}
    given = {name for node in graph.node for name in node.output}
    for name in outputs:
        if name not in given or name not in types:
            raise UsageError(
                f"the model has no value '{name}' that it could give out.",
                where=str(evaluation),
                hint=did_you_mean(name, given & types.keys()),
            )
    if not outputs:
        raise UsageError("graph_output_names is empty.", hint="Name the values to give out.")
    needed, nodes = set(outputs), []
    for node in reversed(graph.node):
        if not needed.isdisjoint(node.output):
            needed.update(node.input)
            nodes.append(node)
    exported = helper.make_graph(
        nodes[::-1],
        graph.name,
        [value for value in graph.input if value.name in needed and value.name not in state],
        [types[name] for name in outputs],
        [numpy_helper.from_array(state[name], name) for name in state if name in needed],
    )
    result = helper.make_model(exported, opset_imports=[helper.make_opsetid("", OPSET)])
    data = finished(result, target.stem, OPSET, {}).SerializeToString(deterministic=True)
    check_unowned(target, ModelError)
    with os_errors_as(ModelError, "the model can't be written", where=target):
        write_whole(target, data)
