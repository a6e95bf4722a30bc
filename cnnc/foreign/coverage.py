"""What a model uses and what of it can be trained: all of it, in one pass, before anything is built."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import onnx_ir as ir

from cnnc.autodiff import RULES
from cnnc.autodiff.rule import Context
from cnnc.errors import CnncError, UnsupportedError
from cnnc.foreign.extensions import why_unknown
from cnnc.foreign.importing import import_network
from cnnc.foreign.reading import Foreign, read
from cnnc.ir import Builder, Network, type_of
from cnnc.ir.transcribe import copy_node
from cnnc.opset import OPSET


@dataclass(frozen=True)
class OperatorRow:
    """One operator of a model, in our opset.

    `count` nodes use it, `on_path` of them lie between a parameter and the loss. `gradient` says whether
    those can be differentiated; where they can't, `advice` says why and what to do.
    """

    operator: str
    count: int
    on_path: int
    gradient: bool
    advice: str = ""


@dataclass(frozen=True)
class Coverage:
    """The report on a model. It can be trained where `ok`."""

    path: str
    opset: int
    producer: str
    operators: tuple[OperatorRow, ...]
    parameters: int
    elements: int
    activation: str
    notes: tuple[str, ...]
    problems: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """Whether nothing is missing."""
        return not self.problems and all(row.gradient or not row.on_path for row in self.operators)

    def record(self) -> dict[str, Any]:
        """For ``--json``."""
        return {**asdict(self), "ok": self.ok}


def coverage(
    path: str | os.PathLike[str],
    *,
    output: str | None = None,
    example: Sequence[int] | None = None,
    dequantize: bool = False,
) -> Coverage:
    """Report on the model at `path`; the arguments are those of `cnnc.foreign.reading.read`.

    Raises ModelError where it can't be read at all. What it reads but can't train stands in the report.
    """
    foreign = read(path, output=output, example=example, dequantize=dequantize)
    if foreign.unknown or foreign.problems:
        return _unreadable(foreign)
    try:
        imported = import_network(foreign)
    except UnsupportedError as error:
        return _report(foreign, [], [error.what])
    network = imported.network
    trained = {p.name for p in network.parameters.values() if p.kind != "statistic"}
    problems = [] if trained & path_parameters(network) else [NOTHING]
    return _report(foreign, _rows(network), problems, network, imported.activation, imported.notes)


NOTHING = "there is nothing to train: no constant floating-point tensor leads smoothly to the output."


def path_nodes(network: Network) -> set[ir.Node]:
    """The nodes between trained parameters and the outputs, through floating-point values."""
    trained = {p.name for p in network.parameters.values() if p.kind != "statistic" and p.trainable}
    trained |= {adapter.weight for adapter in network.adapters}
    active = {value for value in network.graph.inputs[1:] if value.name in trained}
    ahead = []
    for node in network.graph:
        if any(value in active for value in node.inputs):
            ahead.append(node)
            active.update(v for v in node.outputs if v.dtype is not None and v.dtype.is_floating_point())
    wanted: set[ir.Value | None] = set(network.outputs)
    found = set()
    for node in reversed(ahead):
        if any(output in wanted and output in active for output in node.outputs):
            found.add(node)
            wanted.update(node.inputs)
    return found


def path_parameters(network: Network) -> set[str]:
    """Names of the parameters that the output depends on through floating-point values."""
    nodes = path_nodes(network)
    return {
        str(value.name)
        for value in network.graph.inputs[1:]
        if any(user in nodes for user, _ in value.uses())
    }


def missing(network: Network) -> dict[str, str]:
    """For each operator on the path that has no gradient as it is used: why."""
    return {row.operator: row.advice for row in _rows(network) if row.on_path and not row.gradient}


def _rows(network: Network) -> list[OperatorRow]:
    path = path_nodes(network)
    counts: dict[str, list[int]] = {}
    advice: dict[str, str] = {}
    tried: dict[str, str] = {}
    for node in network.graph:
        if node.op_type == "Constant":
            continue
        count = counts.setdefault(node.op_type, [0, 0])
        count[0] += 1
        if node in path:
            count[1] += 1
            key = _signature(node)
            if key not in tried:
                tried[key] = _try(node)
            if tried[key]:
                advice.setdefault(node.op_type, tried[key])
    return [
        OperatorRow(name, all_, on_path, _has_rule(name) and name not in advice, advice.get(name, ""))
        for name, (all_, on_path) in sorted(counts.items())
    ]


def _has_rule(op_type: str) -> bool:
    return op_type in RULES or op_type == "Dropout"


def _try(node: ir.Node) -> str:
    """Why a node can't be differentiated, empty where it can: its rule, applied to a copy of it."""
    if node.op_type == "Dropout":
        return ""  # a multiplication by its mask, in training
    if node.op_type not in RULES:
        return (
            f"{_place(node)} has no gradient rule. Freeze what comes before it, or add a rule in "
            "cnnc/autodiff/rules/."
        )
    builder = Builder(ir.Graph([], [], nodes=[], opset_imports={"": OPSET}, name="try"))
    inputs: list[ir.Value | None] = []
    for index, value in enumerate(node.inputs):
        if value is None:
            inputs.append(None)
        elif (tensor := ir.convenience.get_const_tensor(value)) is not None:
            inputs.append(builder.constant(tensor.numpy()))
        else:
            inputs.append(builder.input(f"input{index}", type_of(value)))
    outputs = copy_node(builder, node, inputs)
    copy = outputs[0].producer()
    assert copy is not None
    needed = [v is not None and v.dtype is not None and v.dtype.is_floating_point() for v in inputs]
    dys = [builder.input(f"dy{i}", type_of(output)) for i, output in enumerate(outputs)]
    try:
        RULES[node.op_type](Context(builder, copy, needed), *dys)
    except CnncError as error:
        return error.what
    except (ValueError, TypeError, KeyError) as error:
        return f"{_place(node)} has no gradient as it is used here: {error}."
    return ""


def _place(node: ir.Node) -> str:
    return f"operator {node.op_type} (node '{node.name}')"


def _signature(node: ir.Node) -> str:
    types = [str(type_of(v)) if v is not None else "-" for v in node.inputs]
    return f"{node.op_type} {types} {sorted((k, str(a.value)) for k, a in node.attributes.items())}"


def _unreadable(foreign: Foreign) -> Coverage:
    """The report on a model with operators that ONNX, or our opset, does not have."""
    why = {op: f"{node} {why}" if node not in why else why for op, node, why in reversed(foreign.problems)}
    why |= {op: why_unknown(op, node) for op, node in foreign.unknown.items()}
    rows = []
    for name, count in sorted(foreign.operators.items()):
        op = next((key for key in why if key.rpartition(".")[2] == name), name)
        bad = op in why
        rows.append(OperatorRow(op, count, count if bad else 0, not bad and _has_rule(name), why.get(op, "")))
    return _report(foreign, rows, [])


def _report(
    foreign: Foreign,
    rows: Sequence[OperatorRow],
    problems: Sequence[str],
    network: Network | None = None,
    activation: str = "identity",
    notes: Sequence[str] = (),
) -> Coverage:
    parameters = [] if network is None else [p for p in network.parameters.values() if p.kind != "statistic"]
    elements = sum(_count(p.type.dims) for p in parameters)
    return Coverage(
        str(foreign.path),
        foreign.opset,
        foreign.producer,
        tuple(rows),
        len(parameters),
        elements,
        activation,
        tuple(notes or foreign.notes),
        tuple(problems),
    )


def _count(dims: Sequence[int | str]) -> int:
    count = 1
    for d in dims:
        count *= int(d)
    return count
