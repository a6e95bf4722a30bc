"""Products and reductions."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor


def gemm(
    a: Tensor,
    b: Tensor,
    c: Tensor | float = 0.0,
    *,
    alpha: float = 1.0,
    beta: float = 1.0,
    transA: int = 0,  # noqa: N803 -- ONNX's name
    transB: int = 0,  # noqa: N803
) -> Tensor:
    return alpha * (a.T if transA else a) @ (b.T if transB else b) + beta * c


def _reduction(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def reduce(
        x: Tensor, axes: Sequence[int] = (), *, keepdims: int = 1, noop_with_empty_axes: int = 0
    ) -> Tensor:
        if not axes and noop_with_empty_axes:
            return function(x[None], dim=[0], keepdim=False)
        return function(x, dim=list(axes) or list(range(x.ndim)), keepdim=bool(keepdims))

    return reduce


def _product(x: Tensor, dim: list[int], keepdim: bool) -> Tensor:
    for axis in sorted((axis % x.ndim for axis in dim), reverse=True):
        x = x.prod(axis, keepdim)
    return x


def cum_sum(x: Tensor, axis: int, *, exclusive: int = 0, reverse: int = 0) -> Tensor:
    y = x.flip(axis).cumsum(axis).flip(axis) if reverse else x.cumsum(axis)
    return y - x if exclusive else y


FUNCTIONS: dict[str, Callable[..., Tensor]] = {
    "Gemm": gemm,
    "MatMul": torch.matmul,
    "Einsum": lambda *xs, equation: torch.einsum(equation, *xs),
    "ReduceSum": _reduction(torch.sum),
    "ReduceMean": _reduction(torch.mean),
    "ReduceMax": _reduction(torch.amax),
    "ReduceMin": _reduction(torch.amin),
    "ReduceProd": _reduction(_product),
    "ReduceL1": _reduction(lambda x, **axes: torch.linalg.vector_norm(x, 1, **axes)),
    "ReduceL2": _reduction(lambda x, **axes: torch.linalg.vector_norm(x, 2, **axes)),
    "ReduceSumSquare": _reduction(lambda x, **axes: (x * x).sum(**axes)),
    "ReduceLogSum": _reduction(lambda x, **axes: x.sum(**axes).log()),
    "ReduceLogSumExp": _reduction(torch.logsumexp),
    "CumSum": cum_sum,
}
