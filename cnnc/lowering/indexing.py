"""Bodies of the gradient of Gather: x [before, size, behind], dy [before, indices, behind]."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from cnnc.ir import is_static
from cnnc.lowering.body import Call, Value, body


def _is_run(call: Call) -> bool:
    places = _known_places(call)
    return places.size > 0 and bool((np.diff(places) == 1).all())


def _all_differ(call: Call) -> bool:
    places = _known_places(call)
    return 0 < places.size == np.unique(places).size


def _is_table(call: Call) -> bool:
    return _axis(call) == 0 and is_static(call.dims("x"))


@body("GatherGrad", legal=_is_run)
def pad(op: Call, dy: Value, x: Value, indices: Value) -> Value:
    """One place, or neighbours in order, known beforehand: zeros around dy."""
    places, axis, rank = _known_places(op), _axis(op), len(op.dims(x))
    pads = [0] * (2 * rank)
    pads[axis], pads[axis + rank] = int(places[0]), int(op.dims(x)[axis]) - 1 - int(places[-1])
    return op.Pad(_rows(op, dy, x), pads, dims=op.dims(x))


@body("GatherGrad", legal=_all_differ)
def inverse(op: Call, dy: Value, x: Value, indices: Value) -> Value:
    """Places that all differ, known beforehand: a Gather from dy with one zero behind it."""
    places, axis, rank = _known_places(op), _axis(op), len(op.dims(x))
    rows = _rows(op, dy, x)
    back = np.full(int(op.dims(x)[axis]), places.size)
    back[places] = np.arange(places.size)
    if back.size > places.size:
        one = [0] * (2 * rank)
        one[axis + rank] = 1
        rows = op.Pad(rows, one)
    return op.Gather(rows, back, axis=axis, dims=op.dims(x))


@body("GatherGrad")
def scatter(op: Call, dy: Value, x: Value, indices: Value) -> Value:
    """ScatterElements on zeros, on one thread. ScatterND has several, and loses sums where indices repeat."""
    axis, rank = _axis(op), len(op.dims(x))
    rows = _rows(op, dy, x)
    places = op.Expand(
        op.Reshape(indices, [-1] + [1] * (rank - axis - 1)), op.Shape(rows), dims=op.dims(rows)
    )
    return op.ScatterElements(op.zeros(x), places, rows, axis=axis, reduction="add")


@body("GatherGrad", legal=_is_table)
def one_hot(op: Call, dy: Value, x: Value, indices: Value) -> Value:
    """Rows of a table: the one-hot indices [size, indices] times dy, for small tables."""
    size, *behind = (int(d) for d in op.dims(x))
    assert x.dtype is not None
    chosen = op.OneHot(op.Reshape(indices, [-1]), size, op.builder.constant([0, 1], x.dtype), axis=0)
    rows = op.Reshape(dy, [-1, math.prod(behind)])
    return op.Reshape(op.MatMul(chosen, rows), [size, *behind])


def _axis(op: Call) -> int:
    return int(op.attr("axis")) % len(op.dims("x"))


def _known_places(op: Call) -> npt.NDArray[Any]:
    """The indices that are known beforehand, flat and none negative; empty where there are none."""
    indices, size = op.input("indices"), op.dims("x")[_axis(op)]
    assert indices is not None
    tensor = ir.convenience.get_const_tensor(indices)
    if tensor is None or not isinstance(size, int):
        return np.zeros(0, np.int64)
    return tensor.numpy().ravel() % size


def _rows(op: Call, dy: Value, x: Value) -> Value:
    """dy with the axes of its indices made one: [before, places, behind]."""
    axis, count = _axis(op), len(op.dims("indices"))
    if count == 1:
        return dy
    if count == 0:
        return op.Unsqueeze(dy, [axis])
    before, behind = op.dims(x)[:axis], op.dims(x)[axis + 1 :]
    shape = [0] * axis + [-1]
    target = [*shape, *behind] if is_static(behind) else op.Concat(shape, op.Shape(x, start=axis + 1), axis=0)
    indexed = op.dims("indices")
    places = math.prod(int(d) for d in indexed) if is_static(indexed) else op.builder.unique("places")
    return op.Reshape(dy, target, dims=(*before, places, *behind))
