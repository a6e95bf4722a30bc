"""Bodies of the dropout mask."""

from __future__ import annotations

import math

import onnx_ir as ir

from cnnc.ir import is_static
from cnnc.lowering.body import Call, Value, body
from cnnc.lowering.random import BITS, uniform

_TYPICAL_BATCH = 64


@body("DropoutMask")
def threshold(op: Call, x: Value, seed: Value, step: Value) -> Value:
    """Counter-based uniform numbers, kept where they exceed the ratio, which is rounded to 2^-15."""
    rows, columns = _matrix(op, x)
    numbers = uniform(op, seed, step, op.attr("stream"), rows, columns)
    ratio = op.attr("ratio")
    # A number is (j + 1/2) / 2^15: 0 where j < dropped, else 1, in one pass; Less, Cast and Where take three.
    dropped = round(ratio * 2**BITS)
    kept = op.HardSigmoid(numbers, alpha=2.0**BITS, beta=0.5 - dropped)
    shape = op.dims(x)
    kept = op.reshape(kept, shape) if is_static(shape[1:]) else op.Reshape(kept, op.Shape(x), dims=shape)
    if x.dtype != ir.DataType.FLOAT:
        kept = op.CastLike(kept, x)
    return op.Mul(kept, 1.0 / (1.0 - ratio))


def _matrix(op: Call, x: Value) -> tuple[Value | int, Value | int]:
    """Rows and columns of the matrix of random numbers for x [N, …].

    A row is a whole number of times in an example, so that an element's number depends on its example and its
    place there, and a short batch draws a prefix.
    """
    batch, *example = op.dims(x) or (1,)
    if not is_static(example):
        return op.Shape(x, start=0, end=1), op.ReduceProd(op.Shape(x, start=1), keepdims=1)
    size = math.prod(int(d) for d in example)
    # As few rows and columns as can be: each of them costs about a hundred times what an element does.
    divisors = (d for d in range(1, size + 1) if size % d == 0)
    columns = min(divisors, key=lambda d: _TYPICAL_BATCH * size // d + d)
    if isinstance(batch, int):
        return batch * size // columns, columns
    return op.Mul(op.Shape(x, start=0, end=1), size // columns), columns
