"""Where maps become vectors and back: Flatten, Gemm and Reshape beside a layout with the batch innermost.

A map [C, H, W, N] is, seen as a matrix, the transpose of its flattened form [N, F]. A product takes it as it
is, with the operand's transposition said the other way, and gives a gradient as [F, N]: no map is moved.
"""

from __future__ import annotations

from math import prod

from cnnc.ir import dims_of
from cnnc.layout.form import Output, Site, Value, follower
from cnnc.layout.order import CHWN, Layout
from cnnc.layout.relayout import is_map


@follower("Flatten", "Reshape", anywhere=True)
def flatten(op: Site) -> Output:
    """[N, C, H, W] to [N, F], remembered as [F, N]; or the way back, which asks the product for [F, N]."""
    source, result = op.node.inputs[0], op.node.outputs[0]
    assert source is not None
    if is_map(result) and not is_map(source):
        return _unflatten(op)
    layout = op.step.layout_of(source) if is_map(source) else None
    if layout is None or not _batch_last(layout) or dims_of(result) != _flat(op):
        return None
    n, f = _flat(op)
    columns = op.reshape(op.read(0, CHWN), (f, n))
    op.step.columns[result] = columns
    return op.Transpose(columns, perm=[1, 0])


def _flat(op: Site) -> tuple[int, int]:
    n, *rest = op.sizes()
    return n, prod(rest)


def _batch_last(layout: Layout) -> bool:
    return layout.base == CHWN


@follower("Gemm", anywhere=True)
def gemm(op: Site) -> Output:
    """A product with a flattened map as it lies."""
    a, b = op.node.inputs[:2]
    turned = {i: op.step.columns[v] for i, v in enumerate((a, b)) if v in op.step.columns}
    if not turned:
        return None
    operands: list[Value | None] = [turned.get(i) or op.plain(i) for i in range(2)]
    operands += [op.plain(2)] if op.value(2) is not None else []
    flags = {name: op.attr(name, 0) ^ (i in turned) for i, name in enumerate(("transA", "transB"))}
    return op.Gemm(*operands, **flags, alpha=op.attr("alpha", 1.0), beta=op.attr("beta", 1.0))


def _unflatten(op: Site) -> Output:
    """Promise the map in [C, H, W, N] as the product the other way round: (A·B)ᵀ = Bᵀ·Aᵀ."""
    source = op.node.inputs[0]
    assert source is not None
    node = source.producer()
    if node is None or node.op_type != "Gemm" or len(node.inputs) > 2 or len(dims_of(source)) != 2:
        return None
    n, c, h, w = op.out
    if dims_of(source) != (n, c * h * w):
        return None
    product = Site(op.step, node, CHWN, op.builder)

    def make() -> Value:
        flags = {"transA": 1 - product.attr("transB", 0), "transB": 1 - product.attr("transA", 0)}
        turned = op.Gemm(product.plain(1), product.plain(0), **flags, alpha=product.attr("alpha", 1.0))
        return op.reshape(turned, CHWN.dims(op.out))

    op.step.makers[op.node.outputs[0], CHWN] = make
    return None
