"""What the files of a bundle, and the inputs and outputs of its graphs, are called."""

from __future__ import annotations

FORMAT, VERSION = "cnnc-bundle", 1
MANIFEST, STATE = "manifest.json", "state.safetensors"
GRAPHS = ("train.onnx", "grad.onnx", "apply.onnx", "eval.onnx", "infer.onnx")
LANE, JOIN = "lane.onnx", "join.onnx"
"""Graphs of a tuned step that goes in lanes."""
RUN_SETTINGS, RUN_BUNDLE = "settings.toml", "bundle"
"""In the folder of a run: the file by which it is known for one, and the bundle that it trains."""
LOSS, GRADIENT, NEXT, ADAPTED = "loss", "gradient", "next/", "adapted/"


def metric_sum(name: str) -> str:
    """The graph output that holds the sum of metric `name` over a batch."""
    return f"metrics/{name}/sum"


def metric_count(name: str) -> str:
    """The graph output that holds the number of examples in the sum of metric `name`."""
    return f"metrics/{name}/count"


def of_lane(lane: int, name: str) -> str:
    """What the join of a tuned step calls the value `name` that its lane number `lane` gives."""
    return f"lanes/{lane}/{name}"
