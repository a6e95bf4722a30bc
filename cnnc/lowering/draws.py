"""Bodies of the numbers that augmentations are drawn by."""

from __future__ import annotations

from cnnc.lowering.body import Call, Value, body
from cnnc.lowering.random import uniform


@body("UniformDraws")
def counted(op: Call, x: Value, seed: Value, step: Value) -> Value:
    """Counter-based uniform numbers: a row for each example, so that a short batch draws a prefix."""
    batch, count = op.dims(x)[0], op.attr("count")
    rows = batch if isinstance(batch, int) else op.Shape(x, start=0, end=1)
    numbers = uniform(op, seed, step, op.attr("stream"), rows, count)
    return op.Reshape(numbers, [-1, count], dims=(batch, count))
