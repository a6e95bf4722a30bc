"""Tracing: calling the user's model once on a symbolic value records its forward graph."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

import onnx_ir as ir

from cnnc.checks import kind_of
from cnnc.errors import ShapeError
from cnnc.ir import Builder, BuildError, Dim, Network, Parameter, TensorType, dims_of
from cnnc.ir.network import Kind
from cnnc.opset import OPSET
from cnnc.source import user_line

if TYPE_CHECKING:
    from cnnc.nn.layer import Layer

LARGEST = 2**29 - 1
"""Elements that a parameter may have: an ONNX file holds less than 2 GiB."""


class Value:
    """A tensor of the network under construction: what layers take and return.

    It has a shape (a size or the symbol ``"N"`` for each dimension) and an element type, but no data.
    ``a + b`` adds two values of the same shape, as `Add` does.
    """

    def __init__(self, trace: Trace, value: ir.Value) -> None:
        self.trace, self.value = trace, value

    @property
    def shape(self) -> tuple[Dim, ...]:
        """The dimensions, such as ``("N", 32, 26, 26)``."""
        return dims_of(self.value)

    @property
    def dtype(self) -> str:
        """NumPy's name of the element type."""
        assert self.value.dtype is not None
        return str(self.value.dtype.numpy().name)

    def __add__(self, other: Value) -> Value:
        from cnnc.nn.combine import Add

        return Add()(self, other)

    def __repr__(self) -> str:
        return f"Value({self.value.name}, {shown(self.shape)})"


class Trace:
    """One forward graph in the making: its builder, its parameters and the names of its layers."""

    def __init__(self, name: str, dtype: ir.DataType = ir.DataType.FLOAT) -> None:
        self.network = Network(ir.Graph([], [], nodes=[], opset_imports={"": OPSET}, name=name))
        self.builder = Builder(self.network.graph)
        self.dtype = dtype
        self._layers: dict[str, Layer] = {}
        self._names: dict[Layer, str] = {}
        self._values: dict[str, ir.Value] = {}
        self._input = ""

    def input(self, name: str, dims: Sequence[Dim]) -> Value:
        """The data input."""
        self._input = name
        return Value(self, self.builder.input(name, TensorType(self.dtype, tuple(dims))))

    def name_of(self, layer: Layer) -> str:
        """The layer's own name, or one by kind and order: ``conv1``, ``conv2``, ``dense1``."""
        if layer not in self._names:
            name = layer.name or self._free(layer.kind)
            if name in self._layers:
                other = self._layers[name]
                raise ShapeError(
                    f"two layers have the name '{name}': this {type(layer).__name__} and the "
                    f"{type(other).__name__} of {other.where}.",
                    where=layer.where,
                    hint="Give one of them another name=, or call one layer twice to share its parameters.",
                )
            if name in self._values or name == self._input:
                raise ShapeError(
                    f"the name '{name}' is taken twice: by this {type(layer).__name__}, and by "
                    f"{'a parameter' if name in self._values else 'the input'}.",
                    where=layer.where,
                    hint="Choose another name= for the layer, or for the input.",
                )
            self._layers[name], self._names[layer] = layer, name
        return self._names[layer]

    def parameter(self, parameter: Parameter) -> ir.Value:
        """The graph input of a parameter, made when it is first asked for."""
        name = parameter.name
        if name not in self._values:
            self.network.parameters[name] = parameter
            value = self._values[name] = self.builder.input(name, parameter.type)
            if value.name != name:
                raise ShapeError(
                    f"the name '{name}' is taken twice: by a parameter, and by a layer or the input.",
                    hint="Choose another name= for the layer, or for the input.",
                )
        return self._values[name]

    def _free(self, kind: str) -> str:
        count = 1
        while (name := f"{kind}{count}") in self._layers or name == self._input:
            count += 1
        return name


class Call:
    """One call of a layer: checks its inputs, and names and places what it emits."""

    def __init__(self, layer: Layer, inputs: Sequence[Value]) -> None:
        for value in inputs:
            if not isinstance(value, Value):
                raise ShapeError(
                    f"{type(layer).__name__} was called on {kind_of(value)}, not on a value of the network.",
                    where=user_line() or layer.where,
                    hint="Layers are called on the model's argument and on what other layers return.",
                )
            if value.trace is not inputs[0].trace:
                raise ShapeError(
                    f"{type(layer).__name__} was called on a value of another model.", where=layer.where
                )
        self.layer, self.trace = layer, inputs[0].trace
        self.name = self.trace.name_of(layer)

    def error(self, what: str, hint: str = "") -> ShapeError:
        """An error of this layer: user's line, layer, what is wrong, what to change."""
        return ShapeError(
            f"{self.name} ({type(self.layer).__name__}): {what}", where=self.layer.where, hint=hint
        )

    def image(self, x: Value) -> tuple[int, int, int]:
        """Channels, height and width of an input [N, C, H, W]."""
        dims = [d for d in x.shape[1:] if isinstance(d, int)]
        if len(x.shape) != 4 or len(dims) != 3:
            raise self.error(
                f"it takes images [N, C, H, W], but its input is {shown(x.shape)}.",
                "Put it before the Flatten." if len(x.shape) == 2 else "",
            )
        return dims[0], dims[1], dims[2]

    def parameter(
        self, suffix: str, dims: Sequence[int], kind: Kind, initial: Mapping[str, Any], trainable: bool = True
    ) -> ir.Value:
        """The layer's parameter ``name.suffix``; a second call of the layer gets the same one."""
        name, dims = f"{self.name}.{suffix}", tuple(dims)
        if math.prod(dims) > LARGEST:
            raise self.error(
                f"its {suffix} {shown(dims)} has {math.prod(dims):,} elements; the most is {LARGEST:,}.",
                "Make the layer, or what goes into it, smaller.",
            )
        known = self.trace.network.parameters.get(name)
        if known is not None and known.type.dims != dims:
            raise self.error(
                f"it is called a second time on an input of another size: its {suffix} is "
                f"{shown(known.type.dims)}, and this input needs {shown(dims)}.",
                "Make a layer of its own for this input.",
            )
        return self.trace.parameter(
            Parameter(name, TensorType(self.trace.dtype, dims), kind, dict(initial), trainable)
        )

    def scope(self) -> AbstractContextManager[None]:
        """The builder's scope: nodes made within carry the user's line and the layer's name."""
        return self.trace.builder.scope(self.name, where=self.layer.where, layer=self.name)

    def op(self, op_type: str, *operands: Any, name: str = "", **attributes: Any) -> Value:
        """Append a node, named after the layer or ``layer/name``."""
        inputs = [o.value if isinstance(o, Value) else o for o in operands]
        try:
            with self.scope():
                result = self.trace.builder.op(
                    op_type, *inputs, name=f"{self.name}/{name}" if name else self.name, **attributes
                )
        except BuildError as error:
            raise self.error(f"{error}.") from error
        return Value(self.trace, result)


def shown(dims: Sequence[Dim]) -> str:
    """Dimensions as they are written in errors: ``[N, 3, 32, 32]``."""
    return f"[{', '.join(map(str, dims))}]"
