"""From ONNX Runtime's profile to milliseconds by layer and part of the step.

The profiler names the nodes of the graph that ONNX Runtime made of ours: fused, laid out anew, some without a
name. Each is brought home by its name, else by the name of a value it gives, else by the nodes that read it
or that it reads.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import onnx

from cnnc.profiling.attribution import Origin, Origins
from cnnc.profiling.inline import all_nodes

Key = tuple[str, str]
"""Name and operator of a node, as profile and graph both tell them; not always unique."""
_SUFFIX = "_kernel_time"


@dataclass
class Times:
    """Milliseconds of one step. `by_flow` of them were assigned by neighbours, `unassigned` not at all.

    `between` is what a step takes beside its kernels, under the profiler.
    """

    by_origin: dict[Origin, float] = field(default_factory=dict)
    by_operator: dict[str, float] = field(default_factory=dict)
    kernels: float = 0.0
    between: float = 0.0
    by_flow: float = 0.0
    unassigned: float = 0.0
    nodes: int = 0


def read(profile: Path, optimised: Path, origins: Origins) -> Times:
    """The mean of the middle half of the steps in a profile whose first step was a warm-up."""
    nodes = list(all_nodes(onnx.load(optimised, load_external_data=False).graph))
    homes = _homes(nodes, origins)
    steps = sorted(_steps(profile, nodes), key=lambda step: sum(ms for _, ms in step[1]))
    quarter = len(steps) // 4
    middle = steps[quarter : len(steps) - quarter]
    times = Times(nodes=len(middle[0][1]))
    for wall, kernels in middle:
        share = 1.0 / len(middle)
        spent = sum(ms for _, ms in kernels) * share
        times.kernels += spent
        times.between += wall * share - spent
        for index, ms in kernels:
            origin, by_flow = homes[index]
            operator = nodes[index].op_type
            times.by_operator[operator] = times.by_operator.get(operator, 0.0) + ms * share
            if origin is None:
                times.unassigned += ms * share
                continue
            times.by_origin[origin] = times.by_origin.get(origin, 0.0) + ms * share
            times.by_flow += ms * share if by_flow else 0.0
    return times


def _steps(profile: Path, nodes: Sequence[onnx.NodeProto]) -> Iterator[tuple[float, list[tuple[int, float]]]]:
    """Milliseconds of each step but the first, and of each run of a node in it, without those inside it."""
    keyed: dict[Key, list[int]] = defaultdict(list)  # in the graph's order, which is that of execution
    for index, node in enumerate(nodes):
        keyed[node.name, node.op_type].append(index)
    holds_others = [any(a.HasField("g") for a in node.attribute) for node in nodes]
    events: list[dict[str, Any]] = json.loads(profile.read_text(encoding="utf-8"))
    kernels = [event for event in events if event["cat"] == "Node" and event["name"].endswith(_SUFFIX)]
    runs = [event for event in events if event["name"] == "model_run"]
    for run in runs[1:]:
        seen: Counter[Key] = Counter()
        found = []
        for event in kernels:
            if not _within(event, run):
                continue
            key = event["name"].removesuffix(_SUFFIX), event["args"]["op_name"]
            if places := keyed.get(key):
                found.append((places[seen[key] % len(places)], event))
                seen[key] += 1
        times = []
        for index, event in found:
            own = event["dur"]
            if holds_others[index]:
                own -= sum(e["dur"] for _, e in found if e is not event and _within(e, event))
            times.append((index, own / 1e3))
        yield run["dur"] / 1e3, times


def _within(event: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    return bool(other["ts"] <= event["ts"] and event["ts"] + event["dur"] <= other["ts"] + other["dur"])


def _homes(nodes: Sequence[onnx.NodeProto], origins: Origins) -> list[tuple[Origin | None, bool]]:
    """The origin of each node, and whether only its neighbours told it."""
    told = [_told(node, origins) for node in nodes]
    homes = list(told)
    readers: dict[str, list[int]] = defaultdict(list)
    producer: dict[str, int] = {}
    for index, node in enumerate(nodes):
        for value in node.input:
            readers[value].append(index)
        producer |= dict.fromkeys(node.output, index)
    for index in reversed(range(len(homes))):
        if homes[index] is None:
            near = {homes[user] for value in nodes[index].output for user in readers[value]}
            homes[index] = near.pop() if len(near) == 1 else None
    for index, node in enumerate(nodes):
        if homes[index] is None:
            before = (homes[producer[value]] for value in node.input if value in producer)
            homes[index] = next((home for home in before if home is not None), None)
    return [(home, known is None) for home, known in zip(homes, told, strict=True)]


def _told(node: onnx.NodeProto, origins: Origins) -> Origin | None:
    """By the node's name, else by those of its outputs, which are named after the nodes that gave them."""
    names = (node.name, *(value.split("//")[0] for value in node.output))
    return next((found for name in names if (found := origins.find(name, node.op_type)) is not None), None)
