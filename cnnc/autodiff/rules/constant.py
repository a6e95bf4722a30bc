"""Operators through which nothing flows, said explicitly.

Their outputs are integers or truth values, or shapes, or random numbers, or change in jumps and stay the same
between them, so that the gradient is zero wherever it exists.
"""

from __future__ import annotations

from cnnc.autodiff.rule import Context, Gradients, Value, rule

WITHOUT_GRADIENT = (
    # Steps: the slope is 0 on both sides of every jump.
    *("Ceil", "Floor", "Hardmax", "Round", "Sign"),
    # Truth values.
    *(
        "And",
        "Equal",
        "Greater",
        "GreaterOrEqual",
        "IsInf",
        "IsNaN",
        "Less",
        "LessOrEqual",
        "Not",
        "Or",
        "Xor",
    ),
    # Integers.
    *("ArgMax", "ArgMin", "BitShift", "BitwiseAnd", "BitwiseNot", "BitwiseOr", "BitwiseXor", "NonZero"),
    # What depends on a shape alone.
    *("ConstantOfShape", "EyeLike", "Shape", "Size"),
    # Random numbers.
    *("DropoutMask", "UniformDraws"),
)


@rule(*WITHOUT_GRADIENT)
def nothing(op: Context, *dys: Value | None) -> Gradients:
    return None
