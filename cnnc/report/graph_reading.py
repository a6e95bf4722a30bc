"""Reads the training graph from train.onnx.

Its nodes say in their metadata which layer or forward node they belong to, and what they differentiate.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain

import onnx

from cnnc.bundle import LOSS, NEXT, Bundle
from cnnc.errors import BundleError
from cnnc.opset import GRAD_DOMAIN
from cnnc.report.graph import METRICS_ROW, NOWHERE, STAGES, UPDATE_ROW, Box, Node, Row, Stage, TrainingGraph

_UPDATING = ("update/", "clip/", "accumulate/", "average/")


def training_graph(bundle: Bundle) -> TrainingGraph:
    """Read the graph of a bundle's step. Raises BundleError where train.onnx can't be read."""
    path = bundle.graph("train.onnx")
    try:
        model = onnx.load(path)
    except Exception as error:  # protobuf's DecodeError is not part of onnx's interface
        raise BundleError(f"this graph can't be read: {error}.", where=str(path)) from error
    return _Reader(bundle, model).read()


class _Reader:
    def __init__(self, bundle: Bundle, model: onnx.ModelProto) -> None:
        self.model, self.graph = model, model.graph
        self.specs = {spec.node: spec for spec in bundle.manifest.functions}
        self.parameters = {entry.name for entry in bundle.manifest.entries("parameter")}
        self.constants = {n.output[0] for n in self.graph.node if n.op_type == "Constant"}
        self.constants |= {tensor.name for tensor in self.graph.initializer}
        self.shapes = {
            value.name: "×".join(d.dim_param or str(d.dim_value) for d in value.type.tensor_type.shape.dim)
            for value in chain(self.graph.input, self.graph.value_info, self.graph.output)
        }
        manifest = bundle.manifest
        self.inputs = set(manifest.batch_names)
        self.outputs = {value.name for value in self.graph.output}
        self.users = Counter(name for n in self.graph.node for name in n.input)
        self.called = self._gradient_names()
        self.rows: list[Row] = []
        self.row_of_node: dict[str, int] = {}
        self.made: dict[str, tuple[int, Stage]] = {}
        """Where each value is made."""

    def read(self) -> TrainingGraph:
        self._place_forward()
        owners = self._owners()
        update = Row(UPDATE_ROW)
        self.rows.append(update)
        for node in self.graph.node:
            if node.op_type != "Constant" and not self._is_forward(node):
                self._place_gradient_or_update(node, owners)
        for row in self.rows:
            for stage in STAGES:
                for box in row.boxes[stage]:
                    self._describe(box)
        if not update.nodes:
            self.rows.pop()
        forward, backward = self._edges()
        loss = next((i for i, row in enumerate(self.rows) if row.name == LOSS), None)
        return TrainingGraph(tuple(self.rows), forward, backward, loss, self._functions())

    def _gradient_names(self) -> dict[str, str]:
        """``∂x`` for each value that is a gradient with respect to x."""
        called: dict[str, str] = {}
        for node in self.graph.node:
            wrt = _known(node).get("cnnc.wrt", "").split()
            outputs = [name for name in node.output if name]
            if len(wrt) == len(outputs):
                called |= {name: f"∂{x}" for name, x in zip(outputs, wrt, strict=True)}
            elif wrt:
                called[outputs[0]] = f"∂{wrt[0]}"
        return called

    def _is_forward(self, node: onnx.NodeProto) -> bool:
        known = _known(node)
        return "cnnc.layer" in known or not (
            "cnnc.forward" in known
            or "cnnc.wrt" in known
            or "cnnc.parameter" in known
            or node.name.startswith(("grad/", *_UPDATING))
            or any(name.startswith(NEXT) for name in node.output)
        )

    def _place_forward(self) -> None:
        """Rows in the order of the forward pass; the loss and the metrics after the layers."""
        nodes = [n for n in self.graph.node if n.op_type != "Constant" and self._is_forward(n)]
        layers = [n for n in nodes if "cnnc.layer" in _known(n)]
        last = layers[-1] if layers else None
        after: dict[str, list[onnx.NodeProto]] = {LOSS: [], METRICS_ROW: []}
        calls: dict[str, int] = {}
        name, passed = None, last is None
        for node in nodes:
            layer = _known(node).get("cnnc.layer")
            part = (node.name or node.op_type).split("/")[0]
            if layer is None and passed:
                after[METRICS_ROW if part == METRICS_ROW else LOSS].append(node)
                continue
            passed = passed or node is last
            if (layer or part) != name:
                name = layer or part
                calls[name] = calls.get(name, 0) + 1
                self.rows.append(Row(name if calls[name] == 1 else node.name or name))
            self._put(node, len(self.rows) - 1, "forward")
        for title, rest in after.items():
            if rest:
                self.rows.append(Row(title))
            for node in rest:
                self._put(node, len(self.rows) - 1, "forward")

    def _owners(self) -> dict[str, int]:
        """The row that first uses each parameter."""
        owners: dict[str, int] = {}
        for node in self.graph.node:
            if (row := self.row_of_node.get(node.name)) is not None:
                for name in node.input:
                    if name in self.parameters:
                        owners.setdefault(name, row)
        return owners

    def _place_gradient_or_update(self, node: onnx.NodeProto, owners: Mapping[str, int]) -> None:
        known = _known(node)
        parameter = known.get("cnnc.parameter") or next(
            (n[len(NEXT) :] for n in node.output if n.startswith(NEXT) and n[len(NEXT) :] in owners), ""
        )
        if parameter in owners:
            self._put(node, owners[parameter], "update", parameter)
        elif node.name.startswith(_UPDATING) or any(name.startswith(NEXT) for name in node.output):
            self._put(node, len(self.rows) - 1, "update")
        else:
            wrt = known.get("cnnc.wrt", "").split()
            row = self._row_of_gradient(node, known, wrt, owners)
            only = wrt[0] if len(wrt) == 1 and wrt[0] in owners else ""
            self._put(node, row, "gradient" if only else "backward", only)
            for name in wrt if not only else ():
                if name in owners:  # a node that makes the gradient of the input and of parameters at once
                    self.rows[row].box("gradient", name)

    def _row_of_gradient(
        self, node: onnx.NodeProto, known: Mapping[str, str], wrt: list[str], owners: Mapping[str, int]
    ) -> int:
        if (forward := known.get("cnnc.forward")) in self.row_of_node:
            return self.row_of_node[str(forward)]
        for name in wrt:  # a sum of gradients stands where the value is made
            if name in owners:
                return owners[name]
            if name in self.made:
                return self.made[name][0]
        rows = [self.made[name][0] for name in node.input if name in self.made]
        return min(rows, default=len(self.rows) - 1)

    def _put(self, node: onnx.NodeProto, row: int, stage: Stage, parameter: str = "") -> None:
        spec, known = self.specs.get(node.name), _known(node)
        self.rows[row].box(stage, parameter).nodes.append(
            Node(
                node.name,
                spec.op if spec else node.op_type,
                spec.body if spec else "",
                tuple(name for name in node.input if name),
                tuple(name for name in node.output if name),
                known.get("cnnc.where", ""),
                node.op_type if node.domain == GRAD_DOMAIN else "",
            )
        )
        self.row_of_node[node.name] = row
        self.made |= dict.fromkeys((name for name in node.output if name), (row, stage))

    def _describe(self, box: Box) -> None:
        """Fill in what enters and leaves the box."""
        if not box.nodes:
            box.results, box.shape = [f"∂{box.parameter}"], self.shapes.get(box.parameter, "")
            return
        made = [name for node in box.nodes for name in node.outputs]
        inside, taken = set(made), list(dict.fromkeys(n for node in box.nodes for n in node.inputs))
        leaving = [
            n
            for n in made
            if n in self.outputs or self.users[n] > sum(node.inputs.count(n) for node in box.nodes)
        ]
        chief = (LOSS, NEXT + box.parameter, box.nodes[-1].outputs[0])
        leaving.sort(key=lambda name: chief.index(name) if name in chief else len(chief))
        leaving = leaving or made[:1]
        entering = [n for n in taken if n not in inside and n not in self.constants]
        box.results = [self._words(n, box.parameter) for n in leaving]
        box.operands = [self._words(n, box.parameter) for n in entering]
        called = self.called.get(leaving[0], "").removeprefix("∂")
        box.shape = self.shapes.get(leaving[0]) or self.shapes.get(called, "")
        box.saved = any(n in self.inputs or self.made.get(n, NOWHERE)[1] == "forward" for n in entering)

    def _words(self, name: str, parameter: str) -> str:
        """What people call a value; in the box of a parameter, its slots lose the parameter's name."""
        called = self.called.get(name, name).removeprefix("update/")
        return called.removeprefix(f"{parameter}/") if parameter else called

    def _edges(self) -> tuple[frozenset[tuple[int, int]], frozenset[tuple[int, int]]]:
        """Between which rows values and gradients pass.

        A layer such as Add passes a gradient on as it is: no node, but a box without any.
        """
        forward, backward = set(), set()
        for index, row in enumerate(self.rows):
            for name in _taken(row.boxes["forward"]):
                source, stage = self.made.get(name, (index, ""))
                if stage == "forward" and source != index:
                    forward.add((source, index))
            for name in _taken([*row.boxes["backward"], *row.boxes["gradient"]]):
                source, stage = self.made.get(name, (index, ""))
                if stage != "backward" or source == index:
                    continue
                owner, _ = self.made.get(self.called.get(name, "")[1:], (index, ""))
                if index < owner < source:
                    passed = self.rows[owner].box("backward")
                    if not passed.nodes:
                        passed.results, passed.shape = [self.called[name]], self.shapes.get(name, "")
                    backward |= {(source, owner), (owner, index)}
                else:
                    backward.add((source, index))
        return frozenset(forward), frozenset(backward)

    def _functions(self) -> dict[str, tuple[str, ...]]:
        return {
            function.name: tuple(
                f"{', '.join(node.output)} = {node.op_type}({', '.join(node.input)})"
                for node in function.node
            )
            for function in self.model.functions
            if function.domain == GRAD_DOMAIN
        }


def _taken(boxes: Iterable[Box]) -> Iterator[str]:
    return (name for box in boxes for node in box.nodes for name in node.inputs)


def _known(node: onnx.NodeProto) -> dict[str, str]:
    """What the node's metadata say."""
    return {item.key: item.value for item in node.metadata_props}
