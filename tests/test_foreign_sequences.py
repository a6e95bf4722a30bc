"""Lists of tensors come apart: what stays computes what the source does, and what can't be known is told."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from foreign_models import model, runnable, save, session
from onnx import TensorProto, helper, numpy_helper

from cnnc.errors import ModelError
from cnnc.foreign.reading import read
from cnnc.foreign.sequences import SEQUENCES

pytestmark = pytest.mark.usefixtures("in_process")


def _node(
    op: str, inputs: Sequence[str], outputs: Sequence[str] = ("y",), **attributes: Any
) -> onnx.NodeProto:
    return helper.make_node(op, inputs, outputs, f"{op}_{outputs[0]}", **attributes)


def _tensor(name: str, values: npt.ArrayLike) -> onnx.TensorProto:
    return numpy_helper.from_array(np.asarray(values, np.int64), name)


CONSTANTS = [
    _tensor("nought", 0), _tensor("one", 1), _tensor("two", 2), _tensor("last", -1), _tensor("sizes", [1, 2]),
]  # fmt: skip
TWO = [_node("Neg", ["x"], ["n"]), _node("SequenceConstruct", ["x", "n"], ["s"])]


def _grown() -> onnx.GraphProto:
    """A body that puts what it carries into a list."""
    info, listed = helper.make_tensor_value_info, helper.make_tensor_sequence_value_info
    return helper.make_graph(
        [
            _node("Identity", ["going"], ["still"]),
            _node("Neg", ["v"], ["w"]),
            _node("SequenceInsert", ["before", "w"], ["after"]),
        ],
        "body",
        [
            info("i", TensorProto.INT64, []),
            info("going", TensorProto.BOOL, []),
            info("v", TensorProto.FLOAT, None),
            listed("before", TensorProto.FLOAT, None),
        ],
        [
            info("still", TensorProto.BOOL, []),
            info("w", TensorProto.FLOAT, None),
            listed("after", TensorProto.FLOAT, None),
        ],
    )


LISTS: dict[str, list[onnx.NodeProto]] = {
    "joined": [*TWO, _node("ConcatFromSequence", ["s"], axis=1)],
    "stacked": [*TWO, _node("ConcatFromSequence", ["s"], axis=-1, new_axis=1)],
    "called otherwise": [*TWO, _node("Identity", ["s"], ["t"]), _node("SequenceAt", ["t", "one"])],
    "parts of one size, the last one smaller": [
        _node("SplitToSequence", ["x", "two"], ["s"], axis=1),
        _node("SequenceAt", ["s", "nought"], ["a"]),
        _node("SequenceAt", ["s", "last"], ["b"]),
        _node("Mul", ["a", "b"]),
    ],
    "parts of sizes": [
        _node("SplitToSequence", ["x", "sizes"], ["s"], axis=-3),
        _node("SequenceAt", ["s", "one"]),
    ],
    "rows": [_node("SplitToSequence", ["x"], ["s"], axis=2), _node("SequenceAt", ["s", "two"])],
    "rows without their axis": [
        _node("SplitToSequence", ["x"], ["s"], axis=2, keepdims=0),
        _node("SequenceAt", ["s", "two"]),
    ],
    "grown and cut": [
        *TWO,
        _node("Abs", ["x"], ["a"]),
        _node("SequenceInsert", ["s", "a", "nought"], ["t"]),
        _node("SequenceInsert", ["t", "x"], ["u"]),
        _node("SequenceErase", ["u", "one"], ["v"]),
        _node("SequenceErase", ["v"], ["w"]),
        _node("SequenceLength", ["v"], ["l"]),
        _node("Cast", ["l"], ["f"], to=TensorProto.FLOAT),
        _node("ConcatFromSequence", ["w"], ["c"], axis=1),
        _node("Mul", ["c", "f"]),
    ],
    "grown in a loop": [
        _node("SequenceEmpty", [], ["e"]),
        helper.make_node("Loop", ["two", "", "x", "e"], ["end", "s"], "loop", body=_grown()),
        _node("ConcatFromSequence", ["s"], axis=2),
    ],
}


def _model(nodes: Sequence[onnx.NodeProto]) -> onnx.ModelProto:
    used = {name for node in nodes for name in node.input}
    return model(nodes, [tensor for tensor in CONSTANTS if tensor.name in used], opset=17)


@pytest.mark.parametrize("name", LISTS)
def test_lists_come_apart(name: str, tmp_path: Path) -> None:
    proto = _model(LISTS[name])
    foreign = read(save(proto, tmp_path / "list.onnx"))
    assert not foreign.problems, foreign.problems
    assert not SEQUENCES.keys() & {node.op_type for node in foreign.graph.node}
    image = np.random.default_rng(0).standard_normal((2, 3, 8, 8)).astype(np.float32)
    (expected,) = session(proto.SerializeToString()).run(["y"], {"x": image})
    (found,) = session(runnable(foreign)).run(None, {"x": image})
    np.testing.assert_array_equal(found, expected)


def test_every_operator_has_a_row() -> None:
    assert not SEQUENCES.keys() - {node.op_type for nodes in LISTS.values() for node in nodes}


UNKNOWN: dict[str, tuple[list[onnx.NodeProto], str]] = {
    "examples": (
        [_node("SplitToSequence", ["x", "one"], ["s"]), _node("SequenceAt", ["s", "nought"])],
        "as many parts as the batch",
    ),
    "a place beyond": ([*TWO, _node("SequenceAt", ["s", "two"])], "number 2 of a list of 2"),
    "a place that the data compute": (
        [
            *TWO,
            _node("ReduceMax", ["x"], ["most"], keepdims=0),
            _node("Cast", ["most"], ["place"], to=TensorProto.INT64),
            _node("SequenceAt", ["s", "place"]),
        ],
        "that the data compute",
    ),
    "a list of none": (
        [
            _node("SequenceEmpty", [], ["s"]),
            _node("ConcatFromSequence", ["s"], ["d"], axis=1),
            _node("Add", ["x", "d"]),
        ],
        "a list that has none",
    ),
    "another reader": ([*TWO, _node("Optional", ["s"], ["o"]), _node("OptionalGetElement", ["o"])], "follow"),
}


@pytest.mark.parametrize("name", UNKNOWN)
def test_what_can_not_be_known_is_told(name: str, tmp_path: Path) -> None:
    nodes, words = UNKNOWN[name]
    problems = read(save(_model(nodes), tmp_path / "list.onnx")).problems
    assert any(words in why for _, _, why in problems), problems


def test_an_invalid_node_is_told(tmp_path: Path) -> None:
    nodes = [*TWO, _node("ConcatFromSequence", ["s"])]
    with pytest.raises(ModelError, match=r"ConcatFromSequence.*axis"):
        read(save(_model(nodes), tmp_path / "list.onnx"))
