"""From gradient ops to functions: which body, what the function is, and that plain runtimes run it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from cases import Case, case, spaced
from onnx import inliner
from onnx.reference import ReferenceEvaluator
from oracle import DOUBLE, FLOAT, assert_close, differentiate, measure, reached, rows_by_body, run, session
from reference import evaluator

from cnnc.errors import UnsupportedError
from cnnc.ir import GRAD_OPS, Builder, Ops, TensorType
from cnnc.lowering import BODIES, Body, body, legal_bodies, lower
from cnnc.opset import GRAD_DOMAIN, GRAD_VERSION, IR_VERSION, OPSET


@pytest.fixture
def op() -> Ops:
    imports = {"": OPSET, GRAD_DOMAIN: GRAD_VERSION}
    return Ops(Builder(ir.Graph([], [], nodes=[], opset_imports=imports, name="lowered")))


def relu_grad(op: Ops, *dims: int | str, dtype: ir.DataType = FLOAT) -> ir.Node:
    """A ReluGrad node on two new inputs."""
    dy, y = (op.builder.input("v", TensorType(dtype, dims)) for _ in range(2))
    node = op.ReluGrad(dy, y).producer()
    op.builder.graph.outputs.extend(node.outputs)
    return node


def conv_grad_weight(op: Ops, size: int | str, group: int = 1, **attributes: Any) -> ir.Node:
    """A ConvGradWeight node of a 3×3 convolution with stride 1."""
    dy, x, w = (
        op.builder.input("v", TensorType(FLOAT, dims))
        for dims in (("N", 2, size, size), ("N", 2, size, size), (2, 2 // group, 3, 3))
    )
    window = {"kernel_shape": [3, 3], "strides": [1, 1], "pads": [1] * 4, "dilations": [1, 1]}
    node: ir.Node = op.ConvGradWeight(dy, x, w, **{**window, **attributes}, group=group).producer()
    return node


def max_pool(dims: str, **attributes: Any) -> Case:
    return case("MaxPool", spaced(dims), kernel_shape=[2, 2], **attributes)


def average_pool(dims: str, **attributes: Any) -> Case:
    return case("AveragePool", dims, kernel_shape=[2, 2], **attributes)


# The table.


def test_every_gradient_op_has_a_body_that_says_what_it_does() -> None:
    assert BODIES.keys() == GRAD_OPS.keys()
    for bodies in BODIES.values():
        assert bodies
        assert bodies[0].exact
        assert all(body.doc for body in bodies)
        assert len({body.name for body in bodies}) == len(bodies)


def test_a_body_of_an_unknown_op_is_refused() -> None:
    with pytest.raises(KeyError, match="NoSuchGrad"):
        body("NoSuchGrad")(lambda op: op.Constant())


# The choice.


def test_the_first_legal_body_is_the_default(op: Ops) -> None:
    node = conv_grad_weight(op, 5)
    assert [b.name for b in legal_bodies(node)] == ["one_hot", "textbook"]
    _, (spec,) = lower(op.builder.graph)
    assert (spec.node, spec.op, spec.body, spec.function) == (
        "ConvGradWeight",
        "ConvGradWeight",
        "one_hot",
        "ConvGradWeight",
    )
    assert node.metadata_props["cnnc.body"] == "one_hot"


def test_a_choice_by_name(op: Ops) -> None:
    first, second = conv_grad_weight(op, 5), conv_grad_weight(op, 5)
    functions, specs = lower(op.builder.graph, {str(second.name): "textbook"})
    assert [spec.body for spec in specs] == ["one_hot", "textbook"]
    assert [function.name for function in functions] == ["ConvGradWeight", "ConvGradWeight_2"]
    assert [first.op_type, second.op_type] == ["ConvGradWeight", "ConvGradWeight_2"]


@pytest.mark.parametrize("wish", ["textbook", "no_such"])
def test_a_body_that_is_not_legal_is_refused(op: Ops, wish: str) -> None:
    with op.builder.scope("conv1", where="net.py:5"):
        node = conv_grad_weight(op, 5, group=2)
    with pytest.raises(UnsupportedError) as caught:
        lower(op.builder.graph, {str(node.name): wish})
    message = str(caught.value)
    assert message.startswith("net.py:5: no body of ConvGradWeight is legal for node 'conv1/ConvGradWeight'")
    assert f"under the name '{wish}'" in message
    assert message.endswith("Bodies of it: pointwise, one_hot, textbook.")
    assert "float[N, 2, 5, 5]" in message


@pytest.mark.parametrize(
    ("row", "op", "legal"),
    [
        (case("Conv", "N 2 5 5", "3 2 3 3"), "ConvGradInput", "flipped transposed stuffed"),
        (case("Conv", "N 2 5 5", "4 1 3 3", group=2), "ConvGradInput", "flipped stuffed"),
        (case("Conv", "N 2 5 5", "3 2 3 3", strides=[1, 2]), "ConvGradInput", "transposed stuffed"),
        (case("Conv", "N 2 5 5", "4 1 3 3", group=2, strides=[2, 2]), "ConvGradInput", "stuffed"),
        (case("Conv", "N 2 5 5", "3 2 3 3", pads=[0, 0, 3, 0]), "ConvGradInput", "transposed stuffed"),
        (case("Conv", "N 2 H 5", "3 2 3 3"), "ConvGradInput", "flipped transposed stuffed"),
        (case("Conv", "N 2 H W", "4 1 3 3", group=2, strides=[2, 2]), "ConvGradInput", "stuffed"),
        (case("Conv", "N 2 5 5", "3 2 1 1"), "ConvGradWeight", "pointwise one_hot textbook"),
        (case("Conv", "N 2 5 5", "3 2 1 1", strides=[1, 2]), "ConvGradWeight", "one_hot textbook"),
        (case("Conv", "N 2 5 5", "3 2 1 1", pads=[0, 0, 0, 1]), "ConvGradWeight", "one_hot textbook"),
        (case("Conv", "N 2 5 5", "3 2 1 2"), "ConvGradWeight", "one_hot textbook"),
        (case("Conv", "N 2 5 5", "4 1 3 3", group=2), "ConvGradWeight", "one_hot"),
        (case("Conv", "N 2 H 5", "3 2 3 3"), "ConvGradWeight", "one_hot"),
        (case("Conv", "N 2 5 W", "3 2 3 3"), "ConvGradWeight", "one_hot"),
        (max_pool("N 2 5 7", strides=[2, 2]), "MaxPoolGrad", "nearest columns"),
        (max_pool("N 2 5 7", strides=[2, 2], ceil_mode=1), "MaxPoolGrad", "columns"),
        (max_pool("N 2 5 7", strides=[2, 1]), "MaxPoolGrad", "columns"),
        (max_pool("N 2 5 7", strides=[2, 2], pads=[0, 0, 1, 0]), "MaxPoolGrad", "columns"),
        (max_pool("N 2 5 7", strides=[2, 2], dilations=[1, 2]), "MaxPoolGrad", "columns"),
        (average_pool("N 2 5 7", strides=[2, 2]), "AveragePoolGrad", "nearest_share transposed"),
        (average_pool("N 2 5 7", strides=[2, 2], ceil_mode=1), "AveragePoolGrad", "transposed"),
        (average_pool("N 2 5 7"), "AveragePoolGrad", "transposed"),
        (max_pool("N 2 H W", strides=[2, 2]), "MaxPoolGrad", "nearest columns"),
        (average_pool("N 2 H W", strides=[2, 2]), "AveragePoolGrad", "nearest_share transposed"),
    ],
    ids=str,
)
def test_which_bodies_are_legal(row: Case, op: str, legal: str) -> None:
    (bodies,) = (bodies for bodies in reached(row).values() if bodies[0].op == op)
    assert [body.name for body in bodies] == legal.split()


def test_no_legal_body_is_an_error(op: Ops, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(BODIES, "ReluGrad", [replace(BODIES["ReluGrad"][0], legal=lambda call: False)])
    relu_grad(op, "N", 3)
    with pytest.raises(
        UnsupportedError, match=r"legal for node 'ReluGrad' \(float\[N, 3\], float\[N, 3\]\)\."
    ):
        lower(op.builder.graph)


def test_an_inexact_body_is_never_the_default(op: Ops, monkeypatch: pytest.MonkeyPatch) -> None:
    exact = BODIES["ReluGrad"][0]
    rough = Body("ReluGrad", "rough", exact.emit, lambda call: True, exact=False)
    monkeypatch.setitem(BODIES, "ReluGrad", [rough, exact])
    node = relu_grad(op, "N", 3)
    assert [b.name for b in legal_bodies(node)] == ["compare", "rough"]
    assert lower(op.builder.graph)[1][0].body == "compare"


# The functions.


def test_nodes_with_alike_bodies_share_a_function(op: Ops) -> None:
    nodes = [relu_grad(op, "N", 3), relu_grad(op, 7, 2, 2), relu_grad(op, 3, dtype=DOUBLE)]
    functions, specs = lower(op.builder.graph)
    assert [function.name for function in functions] == ["ReluGrad", "ReluGrad_2"]
    assert [node.op_type for node in nodes] == ["ReluGrad", "ReluGrad", "ReluGrad_2"]
    assert [spec.node for spec in specs] == [node.name for node in nodes]


def test_nodes_of_other_attributes_have_functions_of_their_own(op: Ops) -> None:
    for pads in ([1, 1, 1, 1], [0, 2, 2, 0], [1, 1, 1, 1]):
        conv_grad_weight(op, 5, pads=pads)
    functions, specs = lower(op.builder.graph)
    assert [spec.function for spec in specs] == ["ConvGradWeight", "ConvGradWeight_2", "ConvGradWeight"]
    assert len(functions) == 2


def test_a_function_says_what_it_is(op: Ops) -> None:
    relu_grad(op, "N", 3)
    (function,), _ = lower(op.builder.graph)
    assert (function.domain, function.name) == (GRAD_DOMAIN, "ReluGrad")
    assert [value.name for value in function.inputs] == ["dy", "y"]
    told = str(function.doc_string)
    assert "dy where the output y is positive" in told
    assert "Body 'compare': dy · [y > 0]" in told
    assert dict(function.metadata_props) == {"cnnc.op": "ReluGrad", "cnnc.body": "compare"}


def test_a_body_may_give_back_its_input_or_one_value_twice(op: Ops, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(BODIES, "ReluGrad", [Body("ReluGrad", "straight", lambda op, dy, y: dy, bool, True)])
    node = relu_grad(op, 3)
    (function,), _ = lower(op.builder.graph)
    assert [inner.op_type for inner in function] == ["Identity"]
    model = ir.Model(op.builder.graph, ir_version=IR_VERSION, functions=[function])
    runtime = session(ir.serde.serialize_model(model))
    values = run(runtime, {"v": np.ones(3), "v_2": np.zeros(3)})
    np.testing.assert_array_equal(values[str(node.outputs[0].name)], np.ones(3))


@pytest.mark.parametrize(
    "wrong", [lambda op, dy, y: op.ReduceSum(dy, [1]), lambda op, dy, y: op.Greater(dy, y)]
)
def test_a_body_of_another_type_is_caught(
    op: Ops, wrong: Callable[..., ir.Value], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(BODIES, "ReluGrad", [Body("ReluGrad", "wrong", wrong, bool, True)])
    relu_grad(op, "N", 3)
    with pytest.raises(AssertionError, match=r"body wrong of ReluGrad gives .*, not float\[N, 3\]"):
        lower(op.builder.graph)


# Plain runtimes.


@pytest.mark.parametrize(("op", "name"), [(b.op, b.name) for bodies in BODIES.values() for b in bodies])
def test_a_body_runs_on_plain_runtimes(op: str, name: str) -> None:
    """On onnx's own ReferenceEvaluator as it is, and inlined, where standard operators only are left."""
    row = rows_by_body()[op, name]
    feeds = measure(row, row.batches[0]).feeds
    choice = {node: name for node, bodies in reached(row).items() if bodies[0].op == op}
    model = differentiate(row, DOUBLE, choice)
    runtime = evaluator(model)
    values = runtime.run(None, {name: feeds[name] for name in runtime.input_names}, intermediate=True)
    assert isinstance(values, dict)
    functions = {function.name: function for function in model.functions}
    for node in (node for node in model.graph.node if node.domain == GRAD_DOMAIN):
        function = functions[node.op_type]
        inputs = {formal: values[given] for formal, given in zip(function.input, node.input, strict=True)}
        outputs = ReferenceEvaluator(function).run(None, inputs, attributes={})
        for given, array in zip(node.output, outputs, strict=True):
            assert_close(array, values[given], 1e-14, f"{given} on the plain runtime")
    flat = inliner.inline_local_functions(model)
    onnx.checker.check_model(flat, full_check=True)
    assert not flat.functions
    assert {node.domain for node in flat.graph.node} == {""}
    for given, array in run(evaluator(flat), feeds).items():
        assert_close(array, values[given], 1e-14, f"{given} inlined")
