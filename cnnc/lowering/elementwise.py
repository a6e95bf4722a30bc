"""Bodies of elementwise gradient ops."""

from __future__ import annotations

import onnx_ir as ir

from cnnc.lowering.body import Call, Value, body


@body("ReluGrad")
def compare(op: Call, dy: Value, y: Value) -> Value:
    """dy · [y > 0]. Faster in ONNX Runtime than Where (three passes inside) and Sign (one thread)."""
    return op.Mul(dy, op.Cast(op.Greater(y, 0.0), to=int(op.node.outputs[0].dtype or ir.DataType.FLOAT)))
