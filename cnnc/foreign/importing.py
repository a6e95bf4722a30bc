"""A normalised foreign graph as a `Network`: what the compiler takes from every front end."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
from onnx import NodeProto, TensorProto, ValueInfoProto, numpy_helper

from cnnc.errors import ModelError, UnsupportedError
from cnnc.foreign.cautions import cautions
from cnnc.foreign.extensions import why_unknown
from cnnc.foreign.head import Head, head_of
from cnnc.foreign.parameters import parameter_kinds, tensor_dims
from cnnc.foreign.placeholders import fix_placeholders
from cnnc.foreign.protos import attributes, label, subgraphs
from cnnc.foreign.reading import Foreign
from cnnc.foreign.sharing import untie
from cnnc.initial import draw
from cnnc.ir import Builder, BuildError, Dim, Network, Parameter, TensorType, dims_of
from cnnc.opset import OPSET

RESERVED = frozenset(
    {"loss", "gradient", "label", "target", "lr_scale", "seed", "step", "output", "probabilities"}
)
RESERVED_PREFIXES = ("next/", "metrics/")

_EXPORTED = {
    "Softmax": "the final Softmax is part of the loss, and of the exported model.",
    "Sigmoid": "the final Sigmoid is part of the loss, and of the exported model.",
    "LogSoftmax": "the final LogSoftmax is part of the loss; the exported model gives probabilities, "
    "not their logarithms.",
}
"""What is said of each final activation."""


@dataclass
class Imported:
    """A network made of a foreign model.

    `activations` are what the source's outputs ended in and the network's do not any more (``softmax``,
    ``sigmoid`` or ``identity``), `notes` what its user should know.
    """

    foreign: Foreign
    network: Network
    activations: tuple[str, ...]
    notes: list[str] = field(default_factory=list)

    @property
    def activation(self) -> str:
        """That of the first output."""
        return self.activations[0]


def import_network(
    foreign: Foreign, *, keep_activation: bool = False, keep: Collection[int] = ()
) -> Imported:
    """The network of a foreign model: weights as parameters, its final activations left to the losses.

    `keep` are the outputs whose activation stays in the network, for losses that compare it with values;
    `keep_activation` means all. Raises
    ModelError, UnsupportedError.
    """
    if foreign.unknown or foreign.problems:
        raise UnsupportedError(
            _missing(foreign), where=str(foreign.path), hint="`cnnc check` lists them all."
        )
    foreign, notes = untie(fix_placeholders(foreign))
    importer = _Importer(foreign)
    imported = importer.run(range(len(foreign.graph.output)) if keep_activation else keep)
    imported.notes += [*notes, *cautions(imported.network)]
    return imported


def _missing(foreign: Foreign) -> str:
    what = [why_unknown(op, node).split(". ")[0] for op, node in foreign.unknown.items()]
    what += [why.rstrip(".") if node in why else f"{node} {why}" for _, node, why in foreign.problems]
    more = f"; and {len(what) - 3} more" if len(what) > 3 else ""
    return f"the model can't be trained: {'; '.join(what[:3])}{more}."


class _Importer:
    def __init__(self, foreign: Foreign) -> None:
        self.foreign, self.graph = foreign, foreign.graph
        self.network = Network(ir.Graph([], [], nodes=[], opset_imports={"": OPSET}, name=foreign.path.stem))
        self.builder = Builder(self.network.graph)
        self.values: dict[str, ir.Value] = {}
        self.notes = list(foreign.notes)
        infos = (*self.graph.value_info, *self.graph.output, self.graph.input[0])
        self.dims = {value.name: _dims(value) for value in infos}
        self.first = self._channels_last(self.graph.input[0].name)
        self.initializers = {tensor.name: tensor for tensor in self.graph.initializer}

    def run(self, keep: Collection[int]) -> Imported:
        heads = [head_of(self.graph, place) for place in range(len(self.graph.output))]
        kept = {id(heads[place].node) for place in keep} | self._read_elsewhere(heads)
        heads = [Head("identity", None) if id(head.node) in kept else head for head in heads]
        left_out, passed = set[int](), set[int]()
        outputs = [value.name for value in self.graph.output]
        for place, head in enumerate(heads):
            if head.node is None:
                continue
            note = _EXPORTED[head.node.op_type]
            self.notes += [note] if note not in self.notes else []
            passed.add(id(head.node))
            if head.activation == "softmax":
                left_out.update(id(node) for node in head.after)
                outputs[place] = head.node.input[0]
        self._inputs()
        for node in self.graph.node:
            if id(node) in passed:
                self.values[node.output[0]] = self.values[node.input[0]]
            elif id(node) not in left_out:
                self._node(node)
        for name in outputs:
            self.network.graph.outputs.append(self._output(self.values[name]))
        activations = tuple(head.activation for head in heads)
        return Imported(self.foreign, self.network, activations, self.notes)

    def _read_elsewhere(self, heads: Sequence[Head]) -> set[int]:
        """The final activations before one output that another output is, or is made of."""
        found = set()
        for head in heads:
            nodes = (*([head.node] if head.node is not None else []), *head.after)
            given = {name for node in nodes for name in node.output}
            others = [
                value.name
                for value, other in zip(self.graph.output, heads, strict=True)
                if other.node is not head.node
            ]
            if given.intersection(others):
                found.add(id(head.node))
        return found

    def _inputs(self) -> None:
        data = self.graph.input[0]
        dims = self.dims[data.name]
        assert dims is not None
        if self.first is not None:
            dims = tuple(dims[axis] for axis in attributes(self.first)["perm"])
            self.notes.append(f"the input '{data.name}' is [{', '.join(map(str, dims))}], channels first.")
        self._check_name("the input", data.name)
        dtype = ir.DataType(data.type.tensor_type.elem_type)
        self.values[data.name] = self.builder.input(data.name, TensorType(dtype, dims))
        sizes = tensor_dims(self.graph)
        types = {v.name: v.type.tensor_type.elem_type for v in self.graph.input}
        types |= {tensor.name: tensor.data_type for tensor in self.graph.initializer}
        for name, kind in parameter_kinds(self.foreign).items():
            self._check_name("the parameter", name)
            if types[name] != dtype:
                raise UnsupportedError(
                    f"the parameter '{name}' is {TensorProto.DataType.Name(types[name]).lower()}, the input "
                    f"{dtype.name.lower()}: cnnc trains in one floating-point type.",
                    where=str(self.foreign.path),
                    hint="Convert the model to float32 first.",
                )
            type_ = TensorType(dtype, sizes[name])
            initial = self.foreign.drawn.get(name, {"kind": "stored"})
            if initial["kind"] == "stored":
                self.network.values[name] = self._array(name)
            self.network.parameters[name] = Parameter(name, type_, kind, initial)
            self.values[name] = self.builder.input(name, type_)

    def _channels_last(self, name: str) -> NodeProto | None:
        """The transposition that alone reads an input [N, …, C], which training takes channels first."""
        readers = [node for node in self.graph.node if name in node.input]
        if len(readers) == 1 and readers[0].op_type == "Transpose":
            rank = len(self.dims[name] or ())
            if attributes(readers[0]).get("perm") == [0, rank - 1, *range(1, rank - 1)]:
                return readers[0]
        return None

    def _check_name(self, what: str, name: str) -> None:
        if name in RESERVED or name.startswith(RESERVED_PREFIXES):
            raise ModelError(
                f"{what} '{name}' is called as an input or output of the training step is.",
                where=str(self.foreign.path),
                hint="Give it another name in the model.",
            )

    def _node(self, node: NodeProto) -> None:
        if node is self.first:
            self.values[node.output[0]] = self.values[node.input[0]]
            return
        inputs = [self._value(name) if name else None for name in node.input]
        where = f"{self.foreign.path.name}: {label(node)}"
        name = node.output[0]
        if name in RESERVED or name.startswith(RESERVED_PREFIXES):
            name = f"{node.op_type}/{name}"
        try:
            with self.builder.scope(name, where=where, layer=node.name):
                results = (
                    self._whole(node, name, inputs)
                    if [*subgraphs(node)]
                    else self.builder.op(
                        node.op_type,
                        *inputs,
                        outputs=len(node.output),
                        name=name,
                        dims=self.dims.get(node.output[0]),
                        **{key: _attribute(value) for key, value in attributes(node).items()},
                    )
                )
        except BuildError as error:
            raise ModelError(f"{error}.", where=where) from error
        outputs = [results] if isinstance(results, ir.Value) else results
        self.values.update((n, v) for n, v in zip(node.output, outputs, strict=True) if n)

    def _whole(self, node: NodeProto, name: str, inputs: Sequence[ir.Value | None]) -> Sequence[ir.Value]:
        """A node with a graph in it, which reads nothing from outside but its inputs."""
        types = {value.name: value.type.tensor_type.elem_type for value in self.graph.value_info}
        known = [TensorType(ir.DataType(types[n]), self.dims[n] or ()) for n in node.output]
        return self.builder.whole(node.op_type, inputs, known, name, attributes(node))

    def _value(self, name: str) -> ir.Value:
        if name not in self.values:
            self.values[name] = self.builder.constant(self._array(name))
        return self.values[name]

    def _array(self, name: str) -> npt.NDArray[Any]:
        if name in self.foreign.arrays:
            return self.foreign.arrays[name]
        if name in self.initializers:
            return np.asarray(numpy_helper.to_array(self.initializers[name]))
        value = next(v for v in self.graph.input if v.name == name).type.tensor_type
        dims = [d.dim_value for d in value.shape.dim]
        return draw(self.foreign.drawn[name], dims, ir.DataType(value.elem_type).numpy(), 0, name)

    def _check_rows(self, output: ir.Value) -> None:
        """Refuse an output that has not a row for each example; of a batch that is fixed, some rows."""
        given, dims = dims_of(self.network.input), dims_of(output)
        rows, batch = dims[0] if dims else 1, given[0]
        if rows == batch or (isinstance(rows, int) and isinstance(batch, int) and not rows % batch):
            return
        example = ", ".join(map(str, given[1:] if isinstance(batch, str) else given))
        raise UnsupportedError(
            f"the output '{output.name}' [{', '.join(map(str, dims))}] has not a row for each of the {batch} "
            f"examples of the input '{self.network.input.name}' [{', '.join(map(str, given))}].",
            where=str(self.foreign.path),
            hint=f"Its examples meet, or its first axis is no batch: export it for [1, {example}].",
        )

    def _output(self, value: ir.Value) -> ir.Value:
        """Logits [N, classes, 1, 1] as a matrix, and one number an example [N] as a column."""
        dims = dims_of(value)
        if len(dims) == 1 and dims[0] == dims_of(self.network.input)[0]:
            self.notes.append(f"the output [{dims[0]}] is [{dims[0]}, 1] now.")
            value = self.builder.op("Unsqueeze", value, [1], name=f"{value.name}/column")
        self._check_rows(value)
        if len(dims) > 2 and all(d == 1 for d in dims[2:]):
            self.notes.append(f"the output [{', '.join(map(str, dims))}] is a matrix now.")
            value = self.builder.op("Flatten", value, name=f"{value.name}/matrix", dims=dims[:2])
        return value


def _dims(value: ValueInfoProto) -> tuple[Dim, ...] | None:
    """Told dimensions, None where not all are."""
    tensor = value.type.tensor_type
    if not tensor.HasField("shape"):
        return None
    dims = tuple(d.dim_value if d.HasField("dim_value") else d.dim_param for d in tensor.shape.dim)
    return None if "" in dims else dims


def _attribute(value: Any) -> Any:
    """An attribute as the builder takes it."""
    return ir.serde.deserialize_tensor(value) if isinstance(value, TensorProto) else value
