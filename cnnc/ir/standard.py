"""Standard ONNX operators: their schemas, their attributes, and the types that inference gives."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir

from cnnc.ir.types import Dim, TensorType, agree, type_of
from cnnc.opset import IR_VERSION, OPSET

_IMPORTS = [onnx.helper.make_opsetid("", OPSET)]
_ATTRIBUTES: dict[Any, Callable[[str, Any], ir.Attr]] = {
    onnx.AttributeProto.FLOAT: lambda key, value: ir.AttrFloat32(key, _single(value)),
    onnx.AttributeProto.INT: lambda key, value: ir.AttrInt64(key, int(value)),
    onnx.AttributeProto.FLOATS: lambda key, values: ir.AttrFloat32s(key, [_single(v) for v in values]),
    onnx.AttributeProto.INTS: lambda key, values: ir.AttrInt64s(key, [int(v) for v in values]),
}


class BuildError(ValueError):
    """A node that its operator's schema does not allow; says the operator and the inputs' types."""


def schema_of(op_type: str) -> onnx.defs.OpSchema:
    """The schema of an operator in our opset. Raises BuildError."""
    try:
        return onnx.defs.get_schema(op_type, OPSET, "")
    except onnx.defs.SchemaError as error:
        raise BuildError(f"standard ONNX has no operator {op_type} in opset {OPSET}") from error


def attributes_of(schema: onnx.defs.OpSchema, attributes: Mapping[str, Any]) -> list[ir.Attr]:
    """Attributes of the types that the schema asks for. Raises BuildError for one that it does not have."""
    attrs = []
    for key, value in attributes.items():
        if key not in schema.attributes:
            raise BuildError(f"{schema.name} has no attribute {key}; it has {sorted(schema.attributes)}")
        make = _ATTRIBUTES.get(schema.attributes[key].type, ir.convenience.convert_attribute)
        attrs.append(make(key, value))
    return attrs


def infer(
    schema: onnx.defs.OpSchema,
    name: str,
    inputs: Sequence[ir.Value | None],
    attributes: Mapping[str, Any],
    attrs: Sequence[ir.Attr],
    outputs: int,
    told: Sequence[Dim] | None,
) -> list[TensorType]:
    """The types of the outputs of a node called `name`; `told` are the first one's dimensions, if known.

    `attributes` are the caller's, for messages, and `attrs` the same as `attributes_of` gives them.

    Raises BuildError for a node that the schema does not allow, or whose types can't be inferred.
    """
    op_type = schema.name
    shown = ", ".join("-" if value is None else str(type_of(value)) for value in inputs)
    proto = onnx.helper.make_node(
        op_type,
        ["" if value is None else str(value.name) for value in inputs],
        [f"output{i}" for i in range(outputs)],
    )
    proto.attribute.extend(ir.serde.serialize_attribute(attr) for attr in attrs)
    present = [value for value in inputs if value is not None]
    try:
        onnx.checker.check_node(proto, _checker_context())
        inferred = onnx.shape_inference.infer_node_outputs(
            schema,
            proto,
            {str(value.name): type_of(value).to_proto() for value in present},
            {
                str(value.name): ir.serde.serialize_tensor(value.const_value)
                for value in present
                if value.const_value is not None and _may_be_shape(value.const_value)
            },
            opset_imports=_IMPORTS,
            ir_version=IR_VERSION,
        )
    except (onnx.shape_inference.InferenceError, onnx.checker.ValidationError, RuntimeError) as error:
        raise BuildError(f"{op_type}({shown}) with {dict(attributes)} is invalid: {error}") from error
    types = []
    for i in range(outputs):
        tensor = inferred[f"output{i}"].tensor_type if f"output{i}" in inferred else onnx.TypeProto.Tensor()
        if not tensor.elem_type:
            raise BuildError(f"the type of output {i} of {op_type}({shown}) can't be inferred")
        dims = _dims(tensor, f"{name}/{i}" if i else name)
        if i == 0 and told is not None:
            dims = _agree(f"{op_type}({shown})", dims, tuple(told))
        if dims is None:
            raise BuildError(
                f"the shape of output {i} of {op_type}({shown}) can't be inferred: tell its dims"
            )
        types.append(TensorType(ir.DataType(tensor.elem_type), dims))
    return types


def _may_be_shape(tensor: ir.TensorProtocol) -> bool:
    """Whether inference may want to read a constant: a few numbers, or any list of integers (of a Split)."""
    return tensor.size <= 1024 or (len(tensor.shape) == 1 and tensor.dtype == ir.DataType.INT64)


def _single(number: float) -> float:
    """The number as float32 holds it: a rule that reads the attribute sees what a runtime will."""
    return float(np.float32(number))


def _checker_context() -> onnx.checker.C.CheckerContext:
    context = onnx.checker.C.CheckerContext()
    context.ir_version = IR_VERSION
    context.opset_imports = {"": OPSET}
    return context


def _dims(tensor: onnx.TypeProto.Tensor, name: str) -> tuple[Dim, ...] | None:
    """The inferred dimensions, None where the rank is unknown.

    An unknown one becomes a symbol named after the value and the axis, so that it is new in any graph.
    """
    if not tensor.HasField("shape"):
        return None
    return tuple(
        dim.dim_value if dim.HasField("dim_value") else dim.dim_param or f"{name}.{axis}"
        for axis, dim in enumerate(tensor.shape.dim)
    )


def _agree(call: str, inferred: tuple[Dim, ...] | None, told: tuple[Dim, ...]) -> tuple[Dim, ...]:
    """The told dimensions, checked against what inference found."""
    if inferred is not None and not agree(inferred, told):
        raise BuildError(f"{call} gives [{join(inferred)}], not [{join(told)}]")
    return told


def join(dims: Sequence[Dim]) -> str:
    """Dimensions in words."""
    return ", ".join(map(str, dims))
