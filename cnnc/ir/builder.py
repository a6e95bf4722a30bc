"""The builder: the only code that creates nodes.

It checks every node against its operator's schema, infers the type of its outputs at once, and keeps names
unique, so a graph is valid and typed at every moment.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir

from cnnc.ir import standard
from cnnc.ir.grad_ops import GRAD_OPS
from cnnc.ir.standard import BuildError, join
from cnnc.ir.types import Dim, TensorType, dims_of, type_of
from cnnc.names import unique
from cnnc.opset import GRAD_DOMAIN

Operand = ir.Value | npt.NDArray[Any] | Sequence[int] | int | float | None
"""An input of a node: a value, a constant (typed by the schema and its fellow inputs), or None."""


class Builder:
    """Appends typed nodes to a graph.

    ``builder.op("Add", x, 1.0)`` returns the node's output, or a tuple of outputs where `outputs` > 1.
    Numbers and arrays become Constant nodes (equal constants once), of the element type that the schema
    and the other inputs ask for.
    """

    def __init__(self, graph: ir.Graph) -> None:
        self.graph = graph
        named: list[ir.Value | ir.Node] = [*graph.inputs, *graph.initializers.values()]
        for node in graph:
            named += [node, *node.outputs]
        self._names = {each.name for each in named if each.name is not None}
        self._constants: dict[tuple[str, tuple[int, ...], bytes], ir.Value] = {}
        self._prefix = ""
        self._metadata: dict[str, str] = {}

    @contextmanager
    def scope(self, prefix: str, **metadata: str) -> Iterator[None]:
        """Within it, nodes are named ``prefix/OpType`` and carry `metadata` as ``cnnc.<key>``."""
        saved = self._prefix, self._metadata
        self._prefix = prefix
        self._metadata = {f"cnnc.{key}": value for key, value in metadata.items() if value}
        try:
            yield
        finally:
            self._prefix, self._metadata = saved

    def input(self, name: str, type_: TensorType) -> ir.Value:
        """Add a graph input."""
        value = _value(self.unique(name), type_)
        self.graph.inputs.append(value)
        return value

    def op(
        self,
        op_type: str,
        *operands: Operand,
        outputs: int = 1,
        name: str = "",
        dims: Sequence[Dim] | None = None,
        **attributes: Any,
    ) -> Any:
        """Append a node of standard ONNX or of `cnnc.grad` and return its output(s).

        `name` is the node's and its first output's, made unique; `dims` tells the output's dimensions where
        inference can't know them (a Reshape with symbols). Raises BuildError.
        """
        attributes = {key: value for key, value in attributes.items() if value is not None}
        base = self.unique(name or (f"{self._prefix}/{op_type}" if self._prefix else op_type))
        if op_type in GRAD_OPS:
            inputs, types, attrs = self._gradient_op(op_type, operands, attributes)
            domain = GRAD_DOMAIN
        else:
            inputs, types, attrs = self._standard_op(op_type, base, operands, outputs, attributes, dims)
            domain = ""
        names = [base] + [self.unique(f"{base}/{i}") for i in range(1, len(types))]
        results = [_value(n, t) for n, t in zip(names, types, strict=True)]
        node = ir.Node(
            domain, op_type, inputs, attrs, outputs=results, name=base, metadata_props=dict(self._metadata)
        )
        self.graph.append(node)
        return results[0] if len(results) == 1 else tuple(results)

    def extension(
        self,
        op_type: str,
        domain: str,
        *operands: ir.Value | npt.NDArray[Any] | None,
        dims: Sequence[Dim],
        **attributes: Any,
    ) -> ir.Value:
        """Append a node of a runtime's own `domain` and return its output.

        No schema of it is known here: the caller tells the output's dimensions, and its element type is the
        first input's.
        """
        inputs = [o if isinstance(o, ir.Value) or o is None else self.constant(o) for o in operands]
        assert inputs[0] is not None
        base = self.unique(f"{self._prefix}/{op_type}" if self._prefix else op_type)
        output = _value(base, TensorType(type_of(inputs[0]).dtype, tuple(dims)))
        attrs = [ir.convenience.convert_attribute(key, value) for key, value in attributes.items()]
        self.graph.append(
            ir.Node(
                domain,
                op_type,
                inputs,
                attrs,
                outputs=[output],
                name=base,
                metadata_props=dict(self._metadata),
            )
        )
        self.graph.opset_imports[domain] = 1
        return output

    def inner(self, name: str) -> Builder:
        """A builder for a graph inside this one, the body of a `loop`, which shares no name with it."""
        body = Builder(ir.Graph([], [], nodes=[], name=name))
        body._names = self._names
        return body

    def loop(self, body: Builder, trips: ir.Value, begun: Sequence[ir.Value], name: str) -> list[ir.Value]:
        """Append a Loop that runs `body` `trips` times from the carried values `begun`; return their ends.

        The body's inputs are the index, a condition, and what is carried; its outputs the latter two.
        """
        base = self.unique(name)
        results = [_value(self.unique(f"{base}/{i}"), type_of(value)) for i, value in enumerate(begun)]
        always = self.constant(True)
        graph = ir.AttrGraph("body", body.graph)
        node = ir.Node(
            "", "Loop", [trips, always, *begun], [graph], outputs=results, name=base,
            metadata_props=dict(self._metadata),
        )  # fmt: skip
        self.graph.append(node)
        return results

    def whole(
        self,
        op_type: str,
        inputs: Sequence[ir.Value | None],
        types: Sequence[TensorType],
        name: str,
        attributes: Mapping[str, Any],
    ) -> list[ir.Value]:
        """Append a node that holds a closed graph, whose names become new here; its outputs have `types`."""
        base = self.unique(name)
        names = [base] + [self.unique(f"{base}/{i}") for i in range(1, len(types))]
        results = [_value(n, t) for n, t in zip(names, types, strict=True)]
        attrs = [self._own(key, value) for key, value in attributes.items()]
        self.graph.append(
            ir.Node(
                "", op_type, inputs, attrs, outputs=results, name=base, metadata_props=dict(self._metadata)
            )
        )
        return results

    def _own(self, key: str, value: Any) -> ir.Attr:
        if not isinstance(value, onnx.GraphProto):
            return ir.convenience.convert_attribute(key, value)
        graph = ir.serde.deserialize_graph(value)
        given = [*graph.inputs, *(v for node in graph.all_nodes() for v in node.outputs)]
        for each in given:
            each.name = self.unique(str(each.name)) if each.name else each.name
        return ir.AttrGraph(key, graph)

    def constant(self, array: npt.ArrayLike, dtype: ir.DataType | None = None) -> ir.Value:
        """A constant, created once for equal arrays of one element type."""
        array = np.asarray(array)
        if dtype is not None:
            array = array.astype(dtype.numpy())
        key = (array.dtype.str, array.shape, array.tobytes())
        if key not in self._constants:
            value = _value(
                self.unique("constant"), TensorType(ir.DataType.from_numpy(array.dtype), array.shape)
            )
            tensor = ir.tensor(array, name=value.name)
            value.const_value = tensor
            self.graph.append(
                ir.Node(
                    "", "Constant", [], [ir.AttrTensor("value", tensor)], outputs=[value], name=value.name
                )
            )
            self._constants[key] = value
        return self._constants[key]

    def reshape(self, x: ir.Value, dims: Sequence[Dim], name: str = "") -> ir.Value:
        """Reshape to `dims`, whose symbols are symbols of `x` (the batch stays symbolic)."""
        if tuple(dims) == dims_of(x):
            return x
        have = dims_of(x)
        target = [
            d if isinstance(d, int) else 0 if i < len(have) and have[i] == d else -1
            for i, d in enumerate(dims)
        ]
        if target.count(-1) > 1:
            raise BuildError(f"Reshape of [{join(have)}] to [{join(dims)}]: only one symbol can move")
        y: ir.Value = self.op("Reshape", x, target, dims=dims, name=name)
        return y

    def split(self, x: ir.Value, sizes: Sequence[int], axis: int = 0) -> list[ir.Value]:
        """The parts of `x` along `axis`, of these sizes; a single one is `x` itself."""
        return [x] if len(sizes) == 1 else list(self.op("Split", x, sizes, axis=axis, outputs=len(sizes)))

    def rename(self, value: ir.Value, name: str) -> ir.Value:
        """Give a node's output, and the node if this is its first output, a better name."""
        name = self.unique(name)
        producer = value.producer()
        if producer is not None and value.index() == 0:
            producer.name = name
        value.name = name
        return value

    def unique(self, name: str) -> str:
        """`name`, or `name_2`, `name_3`, … if it is taken; the result is taken from now on."""
        return unique(name, self._names)

    def _gradient_op(
        self, op_type: str, operands: Sequence[Operand], attributes: Mapping[str, Any]
    ) -> tuple[list[ir.Value | None], list[TensorType], list[ir.Attr]]:
        op = GRAD_OPS[op_type]
        if attributes.keys() != op.attributes.keys():
            wrong = sorted(attributes.keys() ^ op.attributes.keys())
            raise BuildError(f"{op_type} has the attributes {sorted(op.attributes)}; check {wrong}")
        inputs = [
            o if isinstance(o, ir.Value) or o is None else self.constant(np.asarray(o)) for o in operands
        ]
        try:
            types = op.infer([None if value is None else type_of(value) for value in inputs], attributes)
        except ValueError as error:
            raise BuildError(str(error)) from error
        attrs = [
            ir.convenience.convert_attribute(key, op.attributes[key](value))
            for key, value in attributes.items()
        ]
        return inputs, types, attrs

    def _standard_op(
        self,
        op_type: str,
        name: str,
        operands: Sequence[Operand],
        outputs: int,
        attributes: Mapping[str, Any],
        told: Sequence[Dim] | None,
    ) -> tuple[list[ir.Value | None], list[TensorType], list[ir.Attr]]:
        schema = standard.schema_of(op_type)
        attrs = standard.attributes_of(schema, attributes)
        inputs = self._operands(schema, operands)
        types = standard.infer(schema, name, inputs, attributes, attrs, outputs, told)
        return inputs, types, attrs

    def _operands(self, schema: onnx.defs.OpSchema, operands: Sequence[Operand]) -> list[ir.Value | None]:
        """Constants among the operands as values, of the type that the schema asks for."""
        formal = [schema.inputs[min(i, len(schema.inputs) - 1)] for i in range(len(operands))]
        typed = {
            f.type_str: o.dtype for f, o in zip(formal, operands, strict=True) if isinstance(o, ir.Value)
        }
        inputs: list[ir.Value | None] = []
        for parameter, operand in zip(formal, operands, strict=True):
            if operand is None or isinstance(operand, ir.Value):
                inputs.append(operand)
            else:
                dtype = typed.get(parameter.type_str)
                if dtype is None and parameter.type_str == "tensor(int64)":
                    dtype = ir.DataType.INT64
                inputs.append(self.constant(np.asarray(operand), dtype))
        return inputs


class Ops:
    """``op.Conv(x, w)`` for ``builder.op("Conv", x, w)``: how rules and bodies write their mathematics."""

    def __init__(self, builder: Builder) -> None:
        self.builder = builder

    def __getattr__(self, op_type: str) -> Callable[..., Any]:
        if not op_type[0].isupper():
            raise AttributeError(op_type)
        return partial(self.builder.op, op_type)

    def reshape(self, x: ir.Value, dims: Sequence[Dim]) -> ir.Value:
        """See `Builder.reshape`."""
        return self.builder.reshape(x, dims)

    def split(self, x: ir.Value, sizes: Sequence[int], axis: int = 0) -> list[ir.Value]:
        """See `Builder.split`."""
        return self.builder.split(x, sizes, axis)

    def zeros(self, like: ir.Value) -> ir.Value:
        """Zeros of the type of `like`."""
        dtype, dims = type_of(like).dtype, dims_of(like)
        zero = ir.tensor(np.zeros(1, dtype.numpy()))
        zeros: ir.Value = self.builder.op("ConstantOfShape", self.Shape(like), value=zero, dims=dims)
        return zeros


def _value(name: str, type_: TensorType) -> ir.Value:
    return ir.Value(name=name, type=ir.TensorType(type_.dtype), shape=ir.Shape(type_.dims))
