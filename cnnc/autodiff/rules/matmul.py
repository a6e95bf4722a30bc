"""Matrix products."""

from __future__ import annotations

from cnnc.autodiff.rule import Context, Gradients, Value, rule


@rule("Gemm")
def gemm(op: Context, dy: Value) -> Gradients:
    """y = α·A'·B' + β·C, where ' is a transposition if transA, transB say so."""
    a, b = op.inputs[:2]
    trans_a, trans_b = op.attr("transA"), op.attr("transB")
    alpha, beta = op.attr("alpha"), op.attr("beta")
    da = (
        op.Gemm(b, dy, transA=trans_b, transB=1, alpha=alpha)
        if trans_a
        else op.Gemm(dy, b, transB=1 - trans_b, alpha=alpha)
    )
    db = (
        op.Gemm(dy, a, transA=1, transB=trans_a, alpha=alpha)
        if trans_b
        else op.Gemm(a, dy, transA=1 - trans_a, alpha=alpha)
    )
    if op.input(2) is None:
        return da, db
    return da, db, dy if beta == 1.0 else op.Mul(dy, beta)


@rule("MatMul")
def matmul(op: Context, dy: Value) -> Gradients:
    """dA = dy·Bᵀ, dB = Aᵀ·dy; batch dimensions that were broadcast are summed by the engine."""
    a, b = op.inputs
    assert a is not None
    assert b is not None
    a2, b2, dy2 = a, b, dy
    rank_a, rank_b = len(op.dims(a)), len(op.dims(b))
    if rank_a == 1:
        a2 = op.Unsqueeze(a, [0])
        dy2 = op.Unsqueeze(dy2, [-2] if rank_b > 1 else [0])
    if rank_b == 1:
        b2 = op.Unsqueeze(b, [1])
        dy2 = op.Unsqueeze(dy2, [-1])
    da, db = op.MatMul(dy2, _swap(op, b2)), op.MatMul(_swap(op, a2), dy2)
    return (
        op.Squeeze(da, [-2]) if rank_a == 1 else da,
        op.Squeeze(db, [-1]) if rank_b == 1 else db,
    )


def _swap(op: Context, x: Value) -> Value:
    """The last two axes transposed."""
    rank = len(op.dims(x))
    y: Value = op.Transpose(x, perm=[*range(rank - 2), rank - 1, rank - 2])
    return y
