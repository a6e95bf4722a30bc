"""The reverse walk: accumulation, un-broadcasting, names, provenance, and what is left out."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import onnx
import onnx_ir as ir
import pytest

from cnnc import Program, Tensor, losses, nn, optim
from cnnc.autodiff import RULES, gradients, rule
from cnnc.autodiff.rule import Rule
from cnnc.compiler import compile_program
from cnnc.errors import UnsupportedError
from cnnc.ir import Builder, Ops, TensorType, dims_of, type_of
from cnnc.opset import OPSET

FLOAT, INT64 = ir.DataType.FLOAT, ir.DataType.INT64


@pytest.fixture
def builder() -> Builder:
    return Builder(ir.Graph([], [], nodes=[], opset_imports={"": OPSET}, name="engine"))


@pytest.fixture
def op(builder: Builder) -> Ops:
    return Ops(builder)


def total(builder: Builder, x: ir.Value) -> ir.Value:
    return builder.op("ReduceSum", x, keepdims=0, name="loss")


def inputs(builder: Builder, *dims: tuple[int | str, ...]) -> list[ir.Value]:
    return [builder.input(f"x{i}", TensorType(FLOAT, d)) for i, d in enumerate(dims)]


def existing(builder: Builder, loss: ir.Value, wrt: Sequence[ir.Value]) -> list[ir.Value]:
    """Gradients where the loss depends on every value."""
    found = [dx for dx in gradients(builder, loss, wrt) if dx is not None]
    assert len(found) == len(wrt)
    return found


def origin(value: ir.Value) -> ir.Node:
    """The node that makes it."""
    node = value.producer()
    assert node is not None
    return node


def stretched(op: Ops, x: ir.Value) -> ir.Value:
    """As many elements as only the run knows, along the last axis."""
    return op.Expand(x, op.Shape(x), dims=(*dims_of(x)[:2], "L"))


def made(builder: Builder, before: int) -> list[str]:
    """The op types of the nodes after the first `before`, constants left out."""
    return [node.op_type for node in list(builder.graph)[before:] if node.op_type != "Constant"]


# Accumulation and un-broadcasting.


def test_three_uses_give_one_sum(builder: Builder, op: Ops) -> None:
    (x,) = inputs(builder, ("N", 3))
    h = op.Exp(x, name="h")
    loss = total(builder, op.Sum(h, op.Mul(h, 2.0), op.Neg(h)))
    (dx,) = existing(builder, loss, [x])
    (accumulated,) = [n for n in builder.graph if n.op_type == "Sum" and str(n.name).startswith("grad/")]
    assert len(accumulated.inputs) == 3
    assert accumulated.name == "grad/h"
    assert accumulated.metadata_props["cnnc.wrt"] == "h"
    assert type_of(dx) == type_of(x)


def test_a_shared_parameter_has_one_sum_of_its_name(builder: Builder, op: Ops) -> None:
    x, w = inputs(builder, ("N", 3), (3, 3))
    loss = total(builder, op.MatMul(op.MatMul(x, w), w))
    (dw,) = existing(builder, loss, [w])
    assert origin(dw).op_type == "Sum"
    assert dw.name == origin(dw).name == "grad/x1"
    assert origin(dw).metadata_props["cnnc.wrt"] == "x1"


@pytest.mark.parametrize(
    ("dims", "sums"),
    [
        (("N", 3, 4), 0),
        ((1, 3, 4), 1),
        ((3, 4), 1),
        ((3, 1), 2),
        ((1, 1), 2),
        ((), 1),
    ],
)
def test_broadcast_inputs_get_sums(builder: Builder, op: Ops, dims: tuple[int | str, ...], sums: int) -> None:
    x, b = inputs(builder, ("N", 3, 4), dims)
    loss = total(builder, op.Add(x, b))
    before = len(list(builder.graph))
    dx, db = existing(builder, loss, [x, b])
    assert (type_of(dx), type_of(db)) == (type_of(x), type_of(b))
    assert made(builder, before).count("ReduceSum") == sums


def test_what_a_rule_passes_through_costs_no_node_and_keeps_its_name(builder: Builder, op: Ops) -> None:
    a, b = inputs(builder, ("N", 3), ("N", 3))
    loss = total(builder, op.Neg(op.Add(a, b, name="add"), name="scale"))
    da, db = existing(builder, loss, [a, b])
    assert da is db
    assert da.name == "grad/scale/input"
    assert not [n for n in builder.graph if str(n.name).startswith("grad/add")]


# Names and provenance.


def test_names_and_provenance(builder: Builder, op: Ops) -> None:
    image = builder.input("image", TensorType(FLOAT, ("N", 2, 4, 4)))
    w = builder.input("conv1.weight", TensorType(FLOAT, (3, 2, 3, 3)))
    b = builder.input("conv1.bias", TensorType(FLOAT, (3,)))
    with builder.scope("conv1", where="net.py:7"):
        y = op.Conv(image, w, b, name="conv1")
    dw, db, dx = existing(builder, total(builder, op.Mul(y, y)), [w, b, image])
    assert [d.name for d in (dw, db, dx)] == ["grad/conv1/weight", "grad/conv1/bias", "grad/conv1/image"]
    for gradient, value in ((dw, w), (db, b), (dx, image)):
        node = origin(gradient)
        assert node.name == gradient.name
        assert node.metadata_props["cnnc.forward"] == "conv1"
        assert node.metadata_props["cnnc.wrt"] == value.name
        assert node.metadata_props["cnnc.where"] == "net.py:7"


def test_every_node_of_a_rule_is_named_after_its_forward_node(builder: Builder, op: Ops) -> None:
    (x,) = inputs(builder, ("N", 3))
    loss = total(builder, op.Softmax(x, name="softmax"))
    before = len(list(builder.graph))
    gradients(builder, loss, [x])
    nodes = [node for node in list(builder.graph)[before:] if node.op_type != "Constant"]
    assert {node.metadata_props["cnnc.forward"] for node in nodes} == {"loss", "softmax"}
    assert all(str(node.name).startswith(f"grad/{node.metadata_props['cnnc.forward']}/") for node in nodes)
    assert len({value.name for node in builder.graph for value in node.outputs}) == len(list(builder.graph))


def test_a_multiple_output_gradient_names_each(builder: Builder, op: Ops) -> None:
    x = builder.input("x", TensorType(FLOAT, ("N", 2, 3)))
    names = ("weight", "bias", "running_mean", "running_var")
    state = [builder.input(f"bn.{name}", TensorType(FLOAT, (2,))) for name in names]
    y = op.BatchNormalizationTraining(x, *state, epsilon=1e-5, momentum=0.9, name="bn")[0]
    found = existing(builder, total(builder, op.Mul(y, y)), [x, *state[:2]])
    assert [d.name for d in found] == ["grad/bn/x", "grad/bn/weight", "grad/bn/bias"]
    assert origin(found[0]).metadata_props["cnnc.wrt"] == "x bn.weight bn.bias"


def test_what_comes_after_has_no_provenance_of_gradients(builder: Builder, op: Ops) -> None:
    (x,) = inputs(builder, ("N", 3))
    gradients(builder, total(builder, op.Exp(x)), [x])
    node = op.Neg(x).producer()
    assert node.name == "Neg"
    assert not node.metadata_props


# What has a gradient.


def test_integers_have_none(builder: Builder, op: Ops) -> None:
    logits = builder.input("logits", TensorType(FLOAT, ("N", 5)))
    labels = builder.input("labels", TensorType(INT64, ("N",)))
    loss = total(builder, op.SoftmaxCrossEntropy(logits, labels, label_smoothing=0.0)[0])
    dlogits, dlabels = gradients(builder, loss, [logits, labels])
    assert dlogits is not None
    assert type_of(dlogits) == type_of(logits)
    assert dlabels is None


def test_nothing_flows_through_an_integer(builder: Builder, op: Ops) -> None:
    (x,) = inputs(builder, ("N", 3))
    loss = total(builder, op.Cast(op.Cast(x, to=int(INT64)), to=int(FLOAT)))
    assert gradients(builder, loss, [x]) == [None]


def test_independence_is_none(builder: Builder, op: Ops) -> None:
    x, unused, other = inputs(builder, ("N", 3), (3,), (3,))
    op.Mul(x, other)
    dx, *rest = gradients(builder, total(builder, op.Exp(x)), [x, unused, other])
    assert dx is not None
    assert rest == [None, None]


def test_of_an_intermediate_value_and_of_what_it_comes_from(builder: Builder, op: Ops) -> None:
    (x,) = inputs(builder, ("N", 3))
    h = op.Exp(x)
    dh, dx = existing(builder, total(builder, op.Mul(h, h)), [h, x])
    assert origin(dx).op_type == "Mul"
    assert dh in origin(dx).inputs


def test_of_the_loss_itself(builder: Builder, op: Ops) -> None:
    (x,) = inputs(builder, ("N", 3))
    loss = total(builder, x)
    (one,) = existing(builder, loss, [loss])
    assert one.const_value is not None
    assert one.const_value.numpy() == 1.0


# What is left out.


def test_a_frozen_prefix_costs_no_node_and_needs_no_rule(builder: Builder, op: Ops) -> None:
    x, w = inputs(builder, ("N", 3), (3, 2))

    def cost(h: ir.Value) -> int:
        loss = total(builder, op.Tanh(op.MatMul(h, w)))
        before = len(list(builder.graph))
        assert gradients(builder, loss, [w])[0] is not None
        return len(made(builder, before))

    assert "Bernoulli" not in RULES
    assert cost(op.Bernoulli(op.Exp(x))) == cost(x)


@pytest.mark.parametrize("residual", [False, True])
def test_a_deep_network_costs_a_constant_per_layer(residual: bool) -> None:
    def cost(layers: int) -> int:
        builder = Builder(ir.Graph([], [], nodes=[], opset_imports={"": OPSET}))
        op = Ops(builder)
        (x,) = inputs(builder, ("N", 3))
        h = x
        for _ in range(layers):
            h = op.Add(h, op.Relu(h)) if residual else op.Relu(h)
        loss = total(builder, h)
        before = len(list(builder.graph))
        gradients(builder, loss, [x])
        return len(made(builder, before))

    one = cost(2) - cost(1)
    assert one == (2 if residual else 1)
    assert cost(100) == cost(1) + 99 * one


def test_the_compiler_drops_dead_gradients() -> None:
    program = Program(
        input=Tensor("image", ("N", 1, 6, 6)),
        model=nn.Sequential(nn.Conv2d(2, 3), nn.ReLU(), nn.Conv2d(2, 3), nn.Flatten(), nn.Dense(3)),
        loss=losses.SoftmaxCrossEntropy(),
        optimizer=optim.SGD(learning_rate=0.1),
    )
    graph = onnx.load_from_string(compile_program(program).graphs["train.onnx"]).graph
    read = {name for node in graph.node for name in node.input} | {output.name for output in graph.output}
    assert not [node.name for node in graph.node if not read.intersection(node.output)]
    assert [node.op_type for node in graph.node].count("ConvGradInput") == 1
    assert [node.op_type[:14] for node in graph.node].count("ConvGradWeight") == 2


# What is refused.


def test_a_missing_rule_names_node_and_line(builder: Builder, op: Ops) -> None:
    (x,) = inputs(builder, ("N", 3))
    with builder.scope("coin", where="net.py:12"):
        y = op.Bernoulli(x, name="coin")
    with pytest.raises(
        UnsupportedError, match=r"^net\.py:12: operator Bernoulli \(node 'coin'\) .* no gradient rule"
    ):
        gradients(builder, total(builder, y), [x])


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda op, x: op.Slice(x, [0], [4], [1], op.Shape(x, end=1)), "Slice .* which is computed"),
        (lambda op, x: op.Pad(x, [0, 1, 0, 0, -1, 0], mode="reflect"), r"Pad .* mode='reflect' .* -1, 0\]"),
        (lambda op, x: op.Pad(x, op.Shape(x), None, [1], mode="edge"), "Pad .* which is computed"),
        (
            lambda op, x: op.ScatterND(op.Transpose(x), [[0]], [[[1.0]] * 4], reduction="max"),
            r"ScatterND .* reduction='max' .* \(4, 'N'\)",
        ),
        (
            lambda op, x: op.ReduceSum(x, op.Slice(op.Shape(x), [0], [1]), dims="abc"),
            "ReduceSum .* which is computed",
        ),
        (
            lambda op, x: op.MaxPool(x, kernel_shape=[1], strides=[2], ceil_mode=1),
            "MaxPool .* begins outside",
        ),
        (
            lambda op, x: op.MaxPool(stretched(op, x), kernel_shape=[1], strides=[2], ceil_mode=1),
            "MaxPool .* ceil_mode, end pads of 0 and the symbolic size",
        ),
        (
            lambda op, x: op.Conv(stretched(op, x), [[[1.0]] * 4], strides=[2], auto_pad="SAME_UPPER"),
            "Conv .* auto_pad=SAME_UPPER, strides above 1 and the symbolic size",
        ),
        (
            lambda op, x: op.ConvTranspose(x, [[[1.0]]] * 4, output_padding=[1]),
            r"ConvTranspose .* output_padding=\[1\], not below strides=\[1\]",
        ),
        (
            lambda op, x: op.ConvTranspose(
                x, [[[1.0]]] * 4, strides=[2], output_padding=[1], auto_pad="SAME_LOWER"
            ),
            r"ConvTranspose .* auto_pad=SAME_LOWER and output_padding=\[1\]",
        ),
        (
            lambda op, x: op.ConvTranspose(
                stretched(op, x), [[[1.0]]] * 4, strides=[2], output_shape=[9], dims=["N", 1, 9]
            ),
            "ConvTranspose .* output_shape and the symbolic spatial sizes",
        ),
        (
            lambda op, x: op.Resize(x, None, op.Cast(op.Shape(x), to=1), dims="abc"),
            "Resize .* which is computed",
        ),
        (
            lambda op, x: op.Resize(
                x, None, None, [9, 9], axes=[1, 2], keep_aspect_ratio_policy="not_larger", dims="abc"
            ),
            "Resize .* keep_aspect_ratio_policy",
        ),
        (
            lambda op, x: op.LayerNormalization(x, [1.0] * 6, outputs=3)[1],
            "LayerNormalization .* statistics",
        ),
        (
            lambda op, x: op.NegativeLogLikelihoodLoss(
                x, op.ArgMax(x, axis=1, keepdims=0), op.ReduceSum(x, [0, 2], keepdims=0)
            ),
            "NegativeLogLikelihoodLoss .* weights that are trained",
        ),
        (
            lambda op, x: op.SoftmaxCrossEntropy(x, op.ArgMax(x, axis=1, keepdims=0), label_smoothing=0.0)[1],
            "SoftmaxCrossEntropy .* log-probabilities",
        ),
        (
            lambda op, x: op.BatchNormalizationTraining(x, *[[1.0] * 4] * 4, epsilon=0.1, momentum=0.9)[4],
            "BatchNormalizationTraining .* statistics",
        ),
    ],
)
def test_uses_without_a_gradient_are_told(
    builder: Builder, op: Ops, build: Callable[[Ops, ir.Value], ir.Value], message: str
) -> None:
    (x,) = inputs(builder, ("N", 4, 6))
    with builder.scope("layer", where="net.py:3"):
        y = build(op, x)
    with pytest.raises(UnsupportedError, match=rf"^net\.py:3: operator {message}"):
        gradients(builder, total(builder, y), [x])


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda op, dy: [dy, dy], "the rule of Exp returned 2 gradients"),
        (lambda op, dy: op.Transpose(dy), r"the rule of Exp gave float\[3, 4\] .* 'x0', float\[4, 3\]"),
        (lambda op, dy: op.Cast(dy, to=int(ir.DataType.DOUBLE)), r"gave double\[4, 3\]"),
        (lambda op, dy: op.ReduceSum(dy, [0]), r"gave float\[1, 3\]"),
    ],
)
def test_rules_that_break_the_contract_are_caught(
    builder: Builder, op: Ops, wrong: Rule, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (x,) = inputs(builder, (4, 3))
    monkeypatch.setitem(RULES, "Exp", wrong)
    with pytest.raises(AssertionError, match=message):
        gradients(builder, total(builder, op.Exp(x)), [x])


def test_an_operator_has_one_rule() -> None:
    with pytest.raises(ValueError, match="Relu has a gradient rule already"):
        rule("Relu")(lambda op, dy: dy)
