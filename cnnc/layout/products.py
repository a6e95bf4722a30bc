"""1×1 convolutions: matrix products, with channels on the right in [H, W, N, C] and on the left where they
are outermost.
"""

from __future__ import annotations

from math import prod

from cnnc.ir import sizes_of
from cnnc.layout.form import Output, Pending, Site, Value, form
from cnnc.layout.order import CBHWN, CHWN, CNHW, HWNC, ChannelsFirst, Layout, Sizes


def with_bias(op: Site, y: Value) -> Output:
    """The output of a convolution whose bias, operand 2, is yet to be added."""
    return y if op.value(2) is None else Pending(op.layout, y, shift=op.plain(2))


def scaled_rows(op: Site, weight: Value, scale: Value | None) -> Value:
    """A weight [O, …] with each output channel multiplied by its scale [O], if there is one."""
    if scale is None:
        return weight
    dims = sizes_of(weight)
    rows = op.reshape(weight, (dims[0], prod(dims[1:])))
    return op.reshape(op.Mul(rows, op.reshape(scale, (dims[0], 1))), dims)


def splits(rows: int, least: int = 1024, most: int = 64) -> int:
    """Into how many parts a sum over `rows` is cut.

    ONNX Runtime does not divide a product along the axis it sums over: parts of it run on all threads. The
    largest power of two that divides the rows, leaves `least` in a part and is at most `most`.
    """
    count = 1
    while count * 2 <= most and rows % (count * 2) == 0 and rows // (count * 2) >= least:
        count *= 2
    return count


def contracted_rows(op: Site, a: Value, b: Value, rows: int, m: int, k: int) -> Value:
    """aᵀ·b for a [rows, m] and b [rows, k], in parts: [m, k]."""
    parts = splits(rows)
    left = op.Transpose(op.reshape(a, (parts, rows // parts, m)), perm=[0, 2, 1])
    each = op.MatMul(left, op.reshape(b, (parts, rows // parts, k)))
    return op.reshape(op.ReduceSum(each, [0], keepdims=0) if parts > 1 else each, (m, k))


def contracted_columns(op: Site, a: Value, b: Value, columns: int, m: int, k: int) -> Value:
    """a·bᵀ for a [m, columns] and b [k, columns], in parts: [m, k].

    The parts are batches between rows and columns: no operator of standard ONNX multiplies these in place.
    """
    parts = splits(columns, least=2048, most=16)
    if parts == 1:
        return op.MatMul(op.reshape(a, (m, columns)), op.Transpose(op.reshape(b, (k, columns)), perm=[1, 0]))
    each = op.FusedMatMul(
        op.reshape(a, (m, parts, columns // parts)),
        op.reshape(b, (k, parts, columns // parts)),
        dims=(parts, m, k),
        transBatchA=1,
        transBatchB=1,
        transB=1,
    )
    return op.ReduceSum(each, [0], keepdims=0)


def pointwise(op: Site) -> bool:
    """Whether the convolution is 1×1, of stride 1, without groups."""
    return op.window.rank == 2 and op.window.is_pointwise and op.attr("group", 1) == 1


def _products(layout: Layout) -> None:
    """Register the products of a layout whose channels are outermost or innermost."""
    outermost = isinstance(layout, ChannelsFirst)
    contracted = contracted_columns if outermost else contracted_rows

    def product_of(op: Site, matrix: Value, x: Value, sizes: Sizes) -> Value:
        """The matrix times x at each place, from the side of x's channels: a map of these sizes."""
        rows = prod(sizes) // sizes[1]
        if outermost:
            y = op.MatMul(matrix, op.reshape(x, (sizes_of(matrix)[1], rows)))
        else:
            y = op.MatMul(op.reshape(x, (rows, sizes_of(matrix)[0])), matrix)
        return op.reshape(y, layout.dims(sizes))

    @form("Conv", layout, legal=pointwise)
    def product(op: Site) -> Output:
        """y = W·x, or xᵀ·Wᵀ where channels are innermost."""
        weight = op.reshape(op.plain(1), op.dims(1)[:2])
        matrix = weight if outermost else op.Transpose(weight, perm=[1, 0])
        return with_bias(op, product_of(op, matrix, op.read(0), op.out))

    @form("ConvGradInput", layout, legal=pointwise)
    def product_back(op: Site) -> Output:
        """dx = Wᵀ·dy, or dyᵀ·W."""
        dy, outer = op.core(0)
        weight = op.reshape(op.plain(1), op.dims(1)[:2])
        if not outermost:
            return product_of(op, scaled_rows(op, weight, outer), dy, op.out)
        # A product of a transposed operand is slower: transposed before it is scaled, it is plain to ORT.
        turned = op.Transpose(weight, perm=[1, 0])
        matrix = turned if outer is None else op.Mul(turned, op.reshape(outer, (1, op.dims(1)[0])))
        return product_of(op, matrix, dy, op.out)

    @form("ConvGradWeight", layout, legal=pointwise, local=outermost)
    def product_weight(op: Site) -> Output:
        """dw = dy·xᵀ, the sum over places and examples in parts."""
        n, o, h, w = op.sizes(0)
        c = op.dims(1)[1]
        dy, outer = op.core(0)
        weight = contracted(op, dy, op.read(1), n * h * w, o, c)
        return scaled_rows(op, op.reshape(weight, (o, c, 1, 1)), outer)


for _layout in (HWNC, CNHW, CHWN, CBHWN):
    _products(_layout)
