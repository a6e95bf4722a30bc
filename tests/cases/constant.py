"""Operators through which nothing flows: what stands beside them has the whole gradient."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir

from cases.row import Case, Operand, graph, off_jumps, spaced


def beside(op_type: str, result: Callable[..., ir.Value], x: Operand | str = "N 3") -> Case:
    """x times what the operator gives, as a number."""
    return graph(op_type, lambda op, x: op.Mul(x, op.CastLike(result(op, x), x)), x)


ONE_AND_A_HALF = ir.tensor(np.array([1.5]))
INT64, UINT64 = int(ir.DataType.INT64), int(ir.DataType.UINT64)

CONSTANT = [
    *(
        beside(name, lambda op, x, name=name: op.builder.op(name, x), off_jumps("N 3"))
        for name in ("Ceil", "Floor", "Round", "Sign")
    ),
    beside("Hardmax", lambda op, x: op.Hardmax(x), spaced("N 3")),
    beside("Hardmax", lambda op, x: op.Hardmax(x, axis=0), spaced("3 2")),
    *(
        beside(name, lambda op, x, name=name: op.builder.op(name, x, 0.5), off_jumps("N 3"))
        for name in ("Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual")
    ),
    *(
        beside(
            name,
            lambda op, x, name=name: op.builder.op(name, op.Greater(x, 0.5), op.Less(x, 1.0)),
            off_jumps("N 3"),
        )
        for name in ("And", "Or", "Xor")
    ),
    beside("Not", lambda op, x: op.Not(op.Greater(x, 0.5)), off_jumps("N 3")),
    beside("IsNaN", lambda op, x: op.Not(op.IsNaN(x))),
    beside("IsInf", lambda op, x: op.Not(op.IsInf(x))),
    beside("IsInf", lambda op, x: op.Not(op.IsInf(x, detect_negative=0)), "N 2"),
    beside("IsInf", lambda op, x: op.Not(op.IsInf(x, detect_positive=0)), "N 4"),
    *(
        beside(name, lambda op, x, name=name: op.builder.op(name, x, axis=1), spaced("N 3"))
        for name in ("ArgMax", "ArgMin")
    ),
    *(
        beside(
            name,
            lambda op, x, name=name: op.builder.op(name, x, axis=-1, keepdims=0, select_last_index=1),
            spaced("3 3"),
        )
        for name in ("ArgMax", "ArgMin")
    ),
    *(
        beside(name, lambda op, x, name=name: op.builder.op(name, op.Cast(x, to=INT64), 3), off_jumps("N 3"))
        for name in ("BitwiseAnd", "BitwiseOr", "BitwiseXor")
    ),
    beside("BitwiseNot", lambda op, x: op.BitwiseNot(op.Cast(x, to=INT64)), off_jumps("N 3")),
    beside(
        "BitShift",
        lambda op, x: op.BitShift(op.Cast(op.Abs(x), to=UINT64), 1, direction="LEFT"),
        off_jumps("N 3"),
    ),
    beside(
        "BitShift",
        lambda op, x: op.BitShift(op.Cast(op.Abs(x), to=UINT64), 1, direction="RIGHT"),
        off_jumps("N 2"),
    ),
    beside("NonZero", lambda op, x: op.Size(op.NonZero(x))),
    beside("Shape", lambda op, x: op.Shape(x), "3 2"),
    beside("Size", lambda op, x: op.Size(x)),
    beside("Shape", lambda op, x: op.ReduceSum(op.Shape(x, start=1, end=-1)), "N 3 2 3"),
    beside("EyeLike", lambda op, x: op.EyeLike(x), "3 3"),
    beside("EyeLike", lambda op, x: op.EyeLike(x, k=-1, dtype=INT64), "3 4"),
    beside("ConstantOfShape", lambda op, x: op.Add(op.ConstantOfShape(op.Shape(x)), 2.0)),
    beside("ConstantOfShape", lambda op, x: op.ConstantOfShape(op.Shape(x), value=ONE_AND_A_HALF), "N 2"),
    beside("Mod", lambda op, x: op.Mod(op.Cast(x, to=INT64), 2, fmod=0), off_jumps("N 3")),
]
