"""Whether examples meet in a network: what may go through in parts, and what never."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from foreign_models import model, save, weight
from onnx import TensorProto, helper, numpy_helper

from cnnc.build import build
from cnnc.errors import UnsupportedError
from cnnc.ir import Builder, Ops, TensorType
from cnnc.ir.examples import Apart
from cnnc.layout.step import fixed_step, laned_step
from cnnc.opset import OPSET

Emit = Callable[[Ops, ir.Value], Any]
FLOAT, INT64 = ir.DataType.FLOAT, ir.DataType.INT64


def reason(emit: Emit, *dims: int) -> str:
    """The first reason in a network of an input x [N, 4] or [N, *dims]."""
    op = Ops(Builder(ir.Graph([], [], nodes=[], opset_imports={"": OPSET}, name="network")))
    x = op.builder.input("x", TensorType(FLOAT, ("N", *(dims or (4,)))))
    emit(op, x)
    apart = Apart("N", [x])
    return next((told for node in op.builder.graph if (told := apart.meet(node))), "")


def _rows(op: Ops, x: ir.Value) -> ir.Value:
    """How many examples there are, as a vector of one integer."""
    rows: ir.Value = op.Shape(x, start=0, end=1)
    return rows


MIX: dict[str, Emit] = {
    "softmax": lambda op, x: op.Softmax(x, axis=0),
    "softmax from the end": lambda op, x: op.Softmax(x, axis=-2),
    "norm": lambda op, x: op.LpNormalization(x, axis=-2),
    "layer norm": lambda op, x: op.LayerNormalization(x, np.ones((1, 4), np.float32), axis=0),
    "mean": lambda op, x: op.Sub(x, op.ReduceMean(x, [0], keepdims=1)),
    "mean of all": lambda op, x: op.Sub(x, op.ReduceMean(x, keepdims=0)),
    "sum so far": lambda op, x: op.CumSum(x, 0),
    "scatter": lambda op, x: op.ScatterElements(x, np.zeros((1, 4), np.int64), np.ones((1, 4), np.float32)),
    "turned round": lambda op, x: op.Slice(x, [-1], [-(2**31)], [0], [-1], dims=("N", 4)),
    "shifted": lambda op, x: op.Pad(x, [1, 0, -1, 0], dims=("N", 4)),
    "shifted along a named axis": lambda op, x: op.Pad(x, [1, -1], None, [0], dims=("N", 4)),
    "similarities": lambda op, x: op.Gemm(x, x, transB=1),
    "covariance": lambda op, x: op.Gemm(x, x, transA=1),
    "sum over examples": lambda op, x: op.Einsum(x, x, equation="ni,mj->ni", dims=("N", 4)),
    "Einsum of all pairs": lambda op, x: op.Einsum(x, x, equation="ni,mi->nm", dims=("N", "N")),
    "turned": lambda op, x: op.MatMul(op.Transpose(x, perm=[1, 0]), x),
    "triangle": lambda op, x: op.Trilu(x),
    "differences of pairs": lambda op, x: op.Sub(x, op.ReduceMean(x, [1], keepdims=0), dims=("N", "N")),
    "joined": lambda op, x: op.Concat(x, x, axis=0),
    "joined and parted": lambda op, x: op.Reshape(x, [2, -1, 2], dims=(2, "N", 2)),
    "first": lambda op, x: op.Gather(x, np.array([0]), axis=0),
    "number of examples": lambda op, x: op.Div(x, op.Cast(_rows(op, x), to=int(FLOAT))),
    "place of an example": lambda op, x: op.Range(0, op.Squeeze(_rows(op, x)), 1),
}

APART: dict[str, Emit] = {
    "softmax": lambda op, x: op.Softmax(x, axis=-1),
    "product": lambda op, x: op.Add(op.MatMul(x, np.ones((4, 3), np.float32)), np.ones(3, np.float32)),
    "mean": lambda op, x: op.Sub(x, op.ReduceMean(x, [1], keepdims=1)),
    "sum so far": lambda op, x: op.CumSum(x, 1),
    "part": lambda op, x: op.Slice(x, [1], [3], [-1]),
    "padded": lambda op, x: op.Pad(x, [0, 1, 0, 1]),
    "chosen": lambda op, x: op.Gather(x, np.array([2, 0]), axis=1),
    "largest": lambda op, x: op.builder.op("TopK", x, [2], outputs=2),
    "joined": lambda op, x: op.Concat(x, x, axis=-1),
    "as many zeros": lambda op, x: op.Concat(
        x, op.ConstantOfShape(op.Concat(_rows(op, x), [2], axis=0), dims=("N", 2)), axis=1
    ),
    "Einsum": lambda op, x: op.Einsum(x, np.ones((4, 3), np.float32), equation="ni,ij->nj", dims=("N", 3)),
    "flat": lambda op, x: op.Flatten(
        op.Reshape(x, op.Concat(_rows(op, x), [2, 2], axis=0), dims=("N", 2, 2))
    ),
}


@pytest.mark.parametrize("name", MIX)
def test_examples_that_meet_are_found(name: str) -> None:
    assert "the examples of a batch" in reason(MIX[name])


@pytest.mark.parametrize("name", APART)
def test_examples_that_stay_apart_are_let_through(name: str) -> None:
    assert not reason(APART[name])


def test_images_stay_apart() -> None:
    def network(op: Ops, x: ir.Value) -> None:
        y = op.Relu(op.Conv(x, np.ones((4, 3, 3, 3), np.float32), pads=[1] * 4))
        scales, dims = np.array([1, 1, 2, 2], np.float32), ("N", 4, 14, 14)
        y = op.Resize(op.MaxPool(y, kernel_shape=[2, 2], strides=[1, 1]), None, scales, dims=dims)
        op.Trilu(op.MatMul(op.Transpose(y, perm=[0, 1, 3, 2]), y))

    assert not reason(network, 3, 8, 8)
    places = reason(lambda op, x: op.builder.op("MaxPool", x, kernel_shape=[2, 2], outputs=2), 3, 8, 8)
    assert "MaxPool" in places


@pytest.mark.parametrize("prefix", ["", "loss/", "loss_", "grad/"])
@pytest.mark.usefixtures("in_process")
def test_a_batch_whose_examples_meet_never_goes_in_parts(prefix: str, tmp_path: Path) -> None:
    """The mean over a batch of 16 is another one than that over each half, whatever its node is called."""
    nodes = [
        helper.make_node("Gemm", ["x", "first"], ["a"]),
        helper.make_node("ReduceMean", ["a", "axes"], [f"{prefix}m"], keepdims=1),
        helper.make_node("Sub", ["a", f"{prefix}m"], [f"{prefix}s"]),
        helper.make_node("Gemm", [f"{prefix}s", "last"], ["y"]),
    ]
    axes = numpy_helper.from_array(np.array([0]), "axes")
    proto = model(nodes, [weight("first", 4, 4), weight("last", 4, 3), axes], shape=("N", 4))
    assert proto.graph.input[0].type.tensor_type.elem_type == TensorProto.FLOAT
    bundle = build(str(save(proto, tmp_path / "m.onnx")), tmp_path / "b")
    for cut in (fixed_step, laned_step):
        with pytest.raises(UnsupportedError, match="mixes the examples of a batch"):
            cut(bundle, 16, 2)
    with pytest.raises(UnsupportedError, match=r"can't go in chunks, because .* mixes the examples"):
        build(str(tmp_path / "m.onnx"), tmp_path / "c", memory_limit=1000)
