"""The builder: every node checked and typed at once, constants typed by their fellows, names unique."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from cnnc.ir import Builder, BuildError, Ops, TensorType, dims_of, type_of
from cnnc.ir.transcribe import transcribe
from cnnc.opset import GRAD_DOMAIN, GRAD_VERSION, IR_VERSION, OPSET

FLOAT, DOUBLE, INT64 = ir.DataType.FLOAT, ir.DataType.DOUBLE, ir.DataType.INT64
WINDOW = {"kernel_shape": [2, 2], "strides": [1, 1], "pads": [0] * 4, "dilations": [1, 1]}


def new() -> Builder:
    imports = {"": OPSET, GRAD_DOMAIN: GRAD_VERSION}
    return Builder(ir.Graph([], [], nodes=[], opset_imports=imports, name="built"))


@pytest.fixture
def builder() -> Builder:
    return new()


@pytest.fixture
def op(builder: Builder) -> Ops:
    return Ops(builder)


@pytest.fixture
def x(builder: Builder) -> ir.Value:
    return builder.input("x", TensorType(FLOAT, ("N", 4, 6)))


# Types.


@pytest.mark.parametrize(
    ("build", "dtype", "dims"),
    [
        (lambda op, x: op.Exp(x), FLOAT, ("N", 4, 6)),
        (lambda op, x: op.Add(x, 1.0), FLOAT, ("N", 4, 6)),
        (lambda op, x: op.ReduceSum(x, [1], keepdims=0), FLOAT, ("N", 6)),
        (lambda op, x: op.Greater(x, 0.0), ir.DataType.BOOL, ("N", 4, 6)),
        (lambda op, x: op.Shape(x), INT64, (3,)),
        (lambda op, x: op.ArgMax(x, axis=1, keepdims=0), INT64, ("N", 6)),
        (lambda op, x: op.Cast(x, to=int(DOUBLE)), DOUBLE, ("N", 4, 6)),
        (lambda op, x: op.Slice(x, [1], [3], [2]), FLOAT, ("N", 4, 2)),
        (lambda op, x: op.Conv(x, np.ones((5, 4, 3)), None), FLOAT, ("N", 5, 4)),
        (lambda op, x: op.ReluGrad(x, x), FLOAT, ("N", 4, 6)),
        (lambda op, x: op.Reshape(x, op.Shape(x), dims=("N", 4, 6)), FLOAT, ("N", 4, 6)),
        (lambda op, x: op.reshape(x, ("N", 24)), FLOAT, ("N", 24)),
        (lambda op, x: op.reshape(x, (4, "N", 6)), FLOAT, (4, "N", 6)),
    ],
)
def test_outputs_are_typed_at_once(
    op: Ops,
    x: ir.Value,
    build: Callable[[Ops, ir.Value], ir.Value],
    dtype: ir.DataType,
    dims: tuple[int | str, ...],
) -> None:
    assert type_of(build(op, x)) == TensorType(dtype, dims)


def test_several_outputs(op: Ops, x: ir.Value) -> None:
    a, b = op.Split(x, [1, 3], axis=1, outputs=2)
    assert (dims_of(a), dims_of(b)) == (("N", 1, 6), ("N", 3, 6))
    assert a.producer() is b.producer()
    assert (a.name, b.name) == ("Split", "Split/1")


def test_an_unknown_dimension_is_a_symbol_of_its_own(builder: Builder, op: Ops, x: ir.Value) -> None:
    h = builder.input("h", TensorType(FLOAT, ("N", 4, "H")))
    a, b = (op.AveragePool(h, kernel_shape=[2], name=name) for name in ("a", "b"))
    assert (dims_of(a)[2], dims_of(b)[2]) == ("a.2", "b.2")


def test_symbols_of_a_transcribed_graph_stay_its_own() -> None:
    source = new()
    h = source.input("h", TensorType(FLOAT, ("N", 4, "H")))
    pooled = source.op("AveragePool", h, kernel_shape=[2], name="pool1")
    target = new()
    values = transcribe(source.graph, target, {h: target.input("h", type_of(h))})
    again = target.op("AveragePool", values[pooled], kernel_shape=[2], name="pool2")
    assert dims_of(values[pooled])[2] != dims_of(again)[2]


def test_an_absent_input_is_left_out(op: Ops, x: ir.Value) -> None:
    y = op.Clip(x, None, 6.0)
    assert y.producer().inputs[1] is None


# Constants.


@pytest.mark.parametrize("dtype", [FLOAT, DOUBLE])
def test_a_number_takes_the_type_of_its_fellows(builder: Builder, op: Ops, dtype: ir.DataType) -> None:
    x = builder.input("x", TensorType(dtype, (3,)))
    y = op.Mul(2, x)
    assert y.producer().inputs[0].dtype == dtype
    assert y.dtype == dtype


def test_numbers_of_an_integer_input_are_integers(op: Ops, x: ir.Value) -> None:
    assert op.ReduceSum(x, [0]).producer().inputs[1].dtype == INT64


def test_an_array_keeps_its_type_where_nothing_asks_for_another(op: Ops, x: ir.Value) -> None:
    scales = np.array([1, 1, 2], np.float32)
    assert op.Resize(x, None, scales, mode="nearest").producer().inputs[2].dtype == FLOAT


def test_equal_constants_are_one(builder: Builder, op: Ops, x: ir.Value) -> None:
    op.Add(op.Mul(x, 2.0), 2.0)
    op.Mul(x, [2.0])
    assert [node.op_type for node in builder.graph].count("Constant") == 2


def test_a_constant_has_its_value(builder: Builder) -> None:
    value = builder.constant([1, 2], FLOAT)
    assert value.const_value is not None
    assert value.const_value.numpy().dtype == np.float32
    assert type_of(value) == TensorType(FLOAT, (2,))


# Names, scopes, metadata.


def test_names_are_unique(builder: Builder, op: Ops, x: ir.Value) -> None:
    names = [op.Exp(x).name, op.Exp(x).name, op.Exp(x, name="Exp_2").name, op.Exp(x, name="x").name]
    assert names == ["Exp", "Exp_2", "Exp_2_2", "x_2"]


def test_the_names_of_a_graph_that_exists_are_taken(builder: Builder, op: Ops, x: ir.Value) -> None:
    op.Split(x, [1, 3], axis=1, outputs=2)
    again = Builder(builder.graph)
    assert [again.unique(name) for name in ("x", "Split", "Split/1")] == ["x_2", "Split_2", "Split/1_2"]


def test_a_scope_names_and_marks_and_ends(builder: Builder, op: Ops, x: ir.Value) -> None:
    with builder.scope("block", where="net.py:4", empty=""):
        with builder.scope("block/inner", stage="1"):
            inner = op.Exp(x).producer()
        outer = op.Exp(x).producer()
    after = op.Exp(x).producer()
    assert (inner.name, dict(inner.metadata_props)) == ("block/inner/Exp", {"cnnc.stage": "1"})
    assert (outer.name, dict(outer.metadata_props)) == ("block/Exp", {"cnnc.where": "net.py:4"})
    assert (after.name, dict(after.metadata_props)) == ("Exp", {})


def test_a_scope_ends_with_an_error_too(builder: Builder, op: Ops, x: ir.Value) -> None:
    with pytest.raises(BuildError), builder.scope("block"):
        op.NoSuch(x)
    assert op.Exp(x).name == "Exp"


def test_rename_names_value_and_node(builder: Builder, op: Ops, x: ir.Value) -> None:
    y = op.Exp(x)
    assert (builder.rename(y, "y").name, y.producer().name) == ("y", "y")
    first, second = op.Split(x, [1, 3], axis=1, outputs=2)
    assert builder.rename(second, "y").name == "y_2"
    assert second.producer().name == first.name == "Split"


# What is refused.


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda op, x: op.NoSuch(x), "standard ONNX has no operator NoSuch in opset 18"),
        (lambda op, x: op.Gelu(x), "no operator Gelu in opset 18"),
        (lambda op, x: op.Exp(x, axis=1), r"Exp has no attribute axis; it has \[\]"),
        (lambda op, x: op.Softmax(x, axes=1), r"Softmax has no attribute axes; it has \['axis'\]"),
        (lambda op, x: op.Concat(x, x), r"Concat\(float\[N, 4, 6\], float\[N, 4, 6\]\).*axis"),
        (lambda op, x: op.Add(x), r"Add\(float\[N, 4, 6\]\)"),
        (lambda op, x: op.Exp(x, x), "Exp"),
        (lambda op, x: op.Add(x, op.Cast(x, to=int(DOUBLE))), r"Add\(float\[N, 4, 6\], double\[N, 4, 6\]\)"),
        (lambda op, x: op.Add(x, np.ones((5, 1))), r"Add\(float\[N, 4, 6\], float\[5, 1\]\)"),
        (lambda op, x: op.Conv(x, np.ones((5, 4))), r"Conv\(float\[N, 4, 6\], float\[5, 4\]\)"),
        (lambda op, x: op.Softmax(x, axis=3), r"Softmax\(float\[N, 4, 6\]\) with {'axis': 3} is invalid"),
        (lambda op, x: op.MatMul(x, np.ones((4, 2))), "MatMul"),
        (lambda op, x: op.Exp(op.Shape(x)), r"Exp\(int64\[3\]\)"),
        (lambda op, x: op.Reshape(x, op.Size(x)), r"Reshape\(float\[N, 4, 6\], int64\[\]\)"),
        (
            lambda op, x: op.Exp(x, dims=("N", 4, 7)),
            r"Exp\(float\[N, 4, 6\]\) gives \[N, 4, 6\], not \[N, 4, 7\]",
        ),
        (lambda op, x: op.Exp(x, dims=("N", 4)), r"gives \[N, 4, 6\], not \[N, 4\]"),
        (lambda op, x: op.reshape(x, ("M", 4, "N", 6)), "only one symbol can move"),
        (lambda op, x: op.ReluGrad(x), "ReluGrad takes dy, y; 1 inputs were given"),
        (lambda op, x: op.ReluGrad(x, None), "ReluGrad needs its input y"),
        (lambda op, x: op.ReluGrad(x, x, axis=1), r"ReluGrad has the attributes \[\]; check \['axis'\]"),
        (lambda op, x: op.ConvGradWeight(x, x, x, **WINDOW), r"check \['group'\]"),
    ],
)
def test_a_node_that_the_schema_does_not_allow(
    builder: Builder, op: Ops, x: ir.Value, build: Callable[[Ops, ir.Value], object], message: str
) -> None:
    with pytest.raises(BuildError, match=message):
        build(op, x)
    assert all(output.shape is not None for node in builder.graph for output in node.outputs)


def test_only_operators_are_attributes_of_ops(op: Ops) -> None:
    with pytest.raises(AttributeError):
        op.reshapes  # noqa: B018 -- the access is what is tested


def test_what_is_built_passes_the_checker(builder: Builder, op: Ops, x: ir.Value) -> None:
    builder.graph.outputs.append(op.Softmax(op.reshape(op.Mul(x, x), ("N", 24))))
    model = ir.serde.serialize_model(ir.Model(builder.graph, ir_version=IR_VERSION))
    onnx.checker.check_model(model, full_check=True)


def test_a_split_into_more_parts_than_a_shape_has_axes(builder: Builder, op: Ops) -> None:
    """As that of the flat gradient of a network with thousands of parameters."""
    sizes = [1, 2] * 1000
    parts = op.Split(builder.input("flat", TensorType(FLOAT, (3000,))), sizes, axis=0, outputs=2000)
    assert [dims_of(part) for part in parts] == [(size,) for size in sizes]
