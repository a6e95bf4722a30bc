"""Control flow written out computes what the source does; only what the run itself decides is refused."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from foreign_models import inference, model, runnable, save, session, trainer, weight
from onnx import TensorProto, helper, numpy_helper

from cnnc.errors import UnsupportedError
from cnnc.foreign.coverage import coverage
from cnnc.foreign.reading import read
from cnnc.foreign.training import compile_model

pytestmark = pytest.mark.usefixtures("in_process")


def _node(
    op: str, inputs: Sequence[str], outputs: Sequence[str] = ("y",), **attributes: Any
) -> onnx.NodeProto:
    return helper.make_node(op, inputs, outputs, f"the_{op}", **attributes)


def _graph(
    name: str,
    nodes: Sequence[onnx.NodeProto],
    inputs: Sequence[tuple[str, int, list[int] | None]] = (),
    outputs: Sequence[tuple[str, int]] = (),
    tensors: Sequence[onnx.TensorProto] = (),
) -> onnx.GraphProto:
    return helper.make_graph(
        nodes,
        name,
        [helper.make_tensor_value_info(*value) for value in inputs],
        [helper.make_tensor_value_info(value, dtype, None) for value, dtype in outputs],
        tensors,
    )


def _tensor(name: str, values: npt.ArrayLike, dtype: npt.DTypeLike = np.int64) -> onnx.TensorProto:
    return numpy_helper.from_array(np.asarray(values, dtype), name)


FLOAT, INT64, BOOL = TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL
CONV = _node("Conv", ["x", "w"], ["c"], pads=[1, 1, 1, 1])
BATCH_FIRST = _node("Transpose", ["tops"], ["y"], perm=[1, 0, 2, 3, 4])
W = weight("w", 3, 3, 3, 3)


def _if(
    condition: Sequence[onnx.NodeProto], then: onnx.GraphProto, other: onnx.GraphProto
) -> list[onnx.NodeProto]:
    return [CONV, *condition, _node("If", ["is"], ["y"], then_branch=then, else_branch=other)]


COMPUTED = [_node("ReduceMax", ["c"], ["most"], keepdims=0), _node("Greater", ["most", "zero"], ["is"])]
INNER = _graph(
    "deep",
    [_node("Sigmoid", ["t"], ["inner"])],
    outputs=[("inner", FLOAT)],
)
DEEPER = _graph(
    "then",
    [
        _node("Conv", ["c", "v"], ["t"], pads=[1, 1, 1, 1]),
        _node("If", ["is"], ["result"], then_branch=INNER, else_branch=INNER),
    ],
    outputs=[("result", FLOAT)],
    tensors=[weight("v", 3, 3, 3, 3)],
)
OTHER = _graph("else", [_node("Relu", ["c"], ["t"])], outputs=[("t", FLOAT)])


def _loop_body(end: str = "Identity") -> onnx.GraphProto:
    return _graph(
        "body",
        [
            _node(end, ["going"], ["still"]),
            _node("Conv", ["v", "w"], ["moved"], pads=[1, 1, 1, 1]),
            _node("Cast", ["i"], ["turn"], to=FLOAT),
            _node("Add", ["moved", "turn"], ["next"]),
            _node("GlobalMaxPool", ["next"], ["top"]),
        ],
        [("i", INT64, []), ("going", BOOL, []), ("v", FLOAT, None)],
        [("still", BOOL), ("next", FLOAT), ("top", FLOAT)],
    )


def _scaling(by: float) -> onnx.GraphProto:
    """A branch that has two tensors of its own, one of them in a node."""
    literal = _node("Constant", [], ["k"], value=_tensor("k", [[[by]], [[0.0]], [[1.0]]], np.float32))
    nodes = [literal, _node("Conv", ["c", "v"], ["t"]), _node("Mul", ["t", "k"], ["result"])]
    v = _tensor("v", by * np.eye(3).reshape(3, 3, 1, 1), np.float32)
    return _graph("branch", nodes, outputs=[("result", FLOAT)], tensors=[v])


SCANNED = _graph(
    "row",
    [
        _node("Mul", ["before", "half"], ["less"]),
        _node("Add", ["less", "row"], ["now"]),
        _node("Tanh", ["now"], ["out"]),
    ],
    [("before", FLOAT, None), ("row", FLOAT, None)],
    [("now", FLOAT), ("out", FLOAT)],
)

WRITTEN: dict[str, tuple[list[onnx.NodeProto], list[onnx.TensorProto]]] = {
    "If that the data decide": (_if(COMPUTED, DEEPER, OTHER), [_tensor("zero", 0, np.float32)]),
    "If that is known": (
        _if([_node("Constant", [], ["is"], value=_tensor("t", True, bool))], DEEPER, OTHER),
        [],
    ),
    "If whose branches call their tensors the same": (
        _if(COMPUTED, _scaling(3.0), _scaling(5.0)), [_tensor("zero", 1e9, np.float32)]
    ),
    "Loop": (
        [CONV, _node("Loop", ["three", "", "c"], ["last", "tops"], body=_loop_body()), BATCH_FIRST],
        [_tensor("three", 3)],
    ),
    "Loop and its end": (
        [CONV, _node("Loop", ["three", "yes", "c"], ["y", "tops"], body=_loop_body())],
        [_tensor("three", [2]), _tensor("yes", True, bool)],
    ),
    "Loop that ends itself": (
        [CONV, _node("Loop", ["many", "yes", "c"], ["y", "all"], body=_loop_body("Not"))],
        [_tensor("many", 10**9), _tensor("yes", True, bool)],
    ),
    "Scan": (
        [
            CONV,
            _node("ReduceMean", ["c", "place"], ["start"], keepdims=0),
            _node(
                *("Scan", ["start", "c"], ["end", "y"]),
                body=SCANNED, num_scan_inputs=1, scan_input_axes=[2], scan_output_axes=[1],
                scan_input_directions=[1],
            ),
        ],
        [_tensor("place", [2]), _tensor("half", 0.5, np.float32)],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", WRITTEN)
def test_control_flow_is_written_out(name: str, tmp_path: Path) -> None:
    nodes, tensors = WRITTEN[name]
    for opset in (13, 18):
        made = [_in_opset(node, opset) for node in nodes]
        proto = model(made, [W, *tensors], opset=opset)
        foreign = read(save(proto, tmp_path / "control.onnx"))
        assert not foreign.problems, foreign.problems
        assert not {"If", "Loop", "Scan"} & {node.op_type for node in foreign.graph.node}
        image = np.random.default_rng(0).standard_normal((2, 3, 8, 8)).astype(np.float32)
        for x in (image, image - 100.0):
            (expected,) = session(proto.SerializeToString()).run(["y"], {"x": x})
            (found,) = session(runnable(foreign)).run(None, {"x": x})
            np.testing.assert_allclose(found, expected, atol=1e-5 * np.abs(expected).max())
        assert coverage(tmp_path / "control.onnx").ok


def _in_opset(node: onnx.NodeProto, opset: int) -> onnx.NodeProto:
    """The axes of a mean are an attribute before opset 18."""
    if node.op_type == "ReduceMean" and opset < 18:
        return _node("ReduceMean", node.input[:1], node.output, axes=[2], keepdims=0)
    return node


def test_weights_of_a_branch_are_parameters(tmp_path: Path) -> None:
    nodes, tensors = WRITTEN["If that the data decide"]
    report = coverage(save(model(nodes, [W, *tensors]), tmp_path / "control.onnx"))
    assert report.parameters == 2


@pytest.mark.parametrize("literal", [False, True])
def test_steps_of_a_loop_share_weights(literal: bool, tmp_path: Path) -> None:
    body = _loop_body()
    if literal:
        body.node[1].input[1] = "inner"
        body.node.insert(0, _node("Constant", [], ["inner"], value=W))
    nodes = [CONV, _node("Loop", ["three", "", "c"], ["last", "tops"], body=body), BATCH_FIRST]
    report = coverage(save(model(nodes, [W, _tensor("three", 3)]), tmp_path / "control.onnx"))
    assert report.parameters == 1 + literal


UNREAD: dict[str, tuple[list[onnx.NodeProto], tuple[str, ...]]] = {
    "trips": (
        [
            CONV,
            _node("Cast", ["most"], ["trips"], to=INT64),
            _node("Loop", ["trips", "", "c"], ["y"], body=_loop_body()),
        ],
        ("the_Loop", "as often as the data say"),
    ),
    "too many": (
        [CONV, _node("Loop", ["many", "", "c"], ["y"], body=_loop_body())],
        ("the_Loop", "more than 256 steps"),
    ),
    "other shapes": (
        _if(
            COMPUTED,
            _graph("then", [_node("GlobalMaxPool", ["c"], ["g"])], outputs=[("g", FLOAT)]),
            OTHER,
        ),
        ("the_If", "they give other shapes"),
    ),
    "a branch": (
        _if(
            COMPUTED,
            _graph(
                "then",
                [_node("Loop", ["trip", "", "c"], ["g"], body=_loop_body())],
                outputs=[("g", FLOAT)],
            ),
            OTHER,
        ),
        ("the_If", "one of them can't be read"),
    ),
    "a scan": (
        [
            CONV,
            _node("Gather", ["c", "nought"], ["one"]),
            _node("Scan", ["one", "c"], ["end", "y"], body=SCANNED, num_scan_inputs=1),
        ],
        ("the_Scan", "the batch or the data tell"),
    ),
}


@pytest.mark.parametrize("name", UNREAD)
def test_what_only_the_run_decides_is_told(name: str, tmp_path: Path) -> None:
    nodes, words = UNREAD[name]
    first = [_node("ReduceMax", ["x"], ["most"], keepdims=0)] if name == "trips" else []
    if name == "a branch":
        first = [_node("ReduceMax", ["x"], ["top"], keepdims=0), _node("Cast", ["top"], ["trip"], to=INT64)]
    constants = [
        _tensor("zero", 0, np.float32),
        _tensor("many", 10**9),
        _tensor("nought", 0),
        _tensor("half", 0.5, np.float32),
    ]
    problems = read(save(model([*first, *nodes], [W, *constants]), tmp_path / "control.onnx")).problems
    assert any(all(word in f"{node} {why}" for word in words) for _, node, why in problems), problems


def _halving() -> onnx.GraphProto:
    """Halve an image while its largest pixel is over `limit`, which the body reads from outside."""
    return _graph(
        "body",
        [
            _node("Mul", ["v", "half"], ["less"]),
            _node("ReduceMax", ["less"], ["most"], keepdims=0),
            _node("Greater", ["most", "limit"], ["still"]),
        ],
        [("i", INT64, []), ("going", BOOL, []), ("v", FLOAT, None)],
        [("still", BOOL), ("less", FLOAT)],
    )


LIMITS = [_tensor("half", 0.5, np.float32), _tensor("yes", True, bool), weight("fc", 5, 3)]
LAST = [_node("GlobalAveragePool", ["r"], ["g"]), _node("Flatten", ["g"], ["f"])]
LAST.append(_node("Gemm", ["f", "fc"], ["y"], transB=1))
LIMIT = [_node("ReduceMean", ["x"], ["mean"], keepdims=0), _node("Abs", ["mean"], ["limit"])]


def _before(body: onnx.GraphProto | None = None) -> onnx.ModelProto:
    loop = _node("Loop", ["", "yes", "x"], ["small"], body=body or _halving())
    nodes = [*LIMIT, loop, _node("Conv", ["small", "w"], ["c"]), _node("Relu", ["c"], ["r"]), *LAST]
    return model(nodes, [W, *LIMITS])


def test_a_loop_before_the_parameters_is_kept(tmp_path: Path) -> None:
    proto = _before()
    path = save(proto, tmp_path / "before.onnx")
    report = coverage(path)
    rows = {row.operator: row for row in report.operators}
    assert report.ok
    assert (rows["Loop"].count, rows["Loop"].on_path) == (1, 0)
    compiled, *_ = compile_model(path)
    for graph in compiled.graphs.values():
        onnx.checker.check_model(onnx.load_from_string(graph), full_check=True)
    source, step, state = session(proto.SerializeToString()), trainer(compiled), dict(compiled.state)
    random = np.random.default_rng(0)
    losses = []
    for batch in (4, 4, 4, 2):
        image = np.random.default_rng(1).standard_normal((4, 3, 8, 8)).astype(np.float32)[:batch] * 50
        labels = np.arange(batch)
        current = onnx.ModelProto.FromString(proto.SerializeToString())
        for tensor in current.graph.initializer:
            if tensor.name in state:
                tensor.CopyFrom(numpy_helper.from_array(np.asarray(state[tensor.name]), tensor.name))
        (logits,) = session(current.SerializeToString()).run(["y"], {"x": image})
        chances = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
        outputs, after = step(state, image, labels)
        state.update(after)
        np.testing.assert_allclose(outputs["loss"], -np.log(chances[labels, labels]).mean(), rtol=1e-5)
        losses.append(float(outputs["loss"]))
    assert losses[2] < losses[0]
    image = random.standard_normal((3, 3, 8, 8)).astype(np.float32) * 9
    chances = inference(compiled)(image)
    (logits,) = source.run(["y"], {"x": image})
    assert chances.shape == logits.shape


def test_the_same_loop_after_a_parameter_is_refused(tmp_path: Path) -> None:
    loop = _node("Loop", ["", "yes", "c"], ["r"], body=_halving())
    proto = model([*LIMIT, CONV, loop, *LAST], [W, *LIMITS])
    path = save(proto, tmp_path / "after.onnx")
    assert not coverage(path).ok
    with pytest.raises(UnsupportedError, match=r"the_Loop.*after a parameter"):
        compile_model(path)


def test_a_scan_of_the_batch_before_the_parameters_is_kept(tmp_path: Path) -> None:
    scan = _node("Scan", ["start", "x"], ["end", "small"], body=SCANNED, num_scan_inputs=1)
    nodes = [
        _node("ReduceMean", ["x", "place"], ["start"], keepdims=0), scan,
        _node("Conv", ["small", "w"], ["c"]), _node("Relu", ["c"], ["r"]), *LAST,
    ]  # fmt: skip
    proto = model(nodes, [W, *LIMITS, _tensor("place", [0])])
    foreign = read(save(proto, tmp_path / "scan.onnx"))
    assert not foreign.problems, foreign.problems
    image = np.random.default_rng(0).standard_normal((5, 3, 8, 8)).astype(np.float32)
    (expected,) = session(proto.SerializeToString()).run(["y"], {"x": image})
    (found,) = session(runnable(foreign)).run(None, {"x": image})
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert coverage(tmp_path / "scan.onnx").ok
