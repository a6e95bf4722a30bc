"""1×1 convolutions: matrix products, with channels on the right in [H, W, N, C] and on the left where they
are outermost.
"""

from __future__ import annotations

from cnnc.layout.form import Output, Pending, Site, Value, form
from cnnc.layout.order import CHWN, CNHW, HWNC, ChannelsFirst
from cnnc.layout.winograd import scaled_rows


def pointwise(op: Site) -> bool:
    """Whether the convolution is 1×1, of stride 1, without groups."""
    return op.window.rank == 2 and op.window.is_pointwise and op.attr("group", 1) == 1


def splits(rows: int, least: int = 1024, most: int = 64) -> int:
    """Into how many parts a sum over `rows` is cut.

    ONNX Runtime does not divide a product along the axis it sums over: parts of it run on all threads. The
    largest power of two that divides the rows, leaves `least` in a part and is at most `most`.
    """
    count = 1
    while count * 2 <= most and rows % (count * 2) == 0 and rows // (count * 2) >= least:
        count *= 2
    return count


@form("Conv", HWNC, legal=pointwise)
def product(op: Site) -> Output:
    """y = x·Wᵀ."""
    n, o, h, w = op.out
    c = op.dims(1)[1]
    y = op.MatMul(
        op.reshape(op.read(0), (h * w * n, c)), op.Transpose(op.reshape(op.plain(1), (o, c)), perm=[1, 0])
    )
    return with_bias(op, op.reshape(y, (h, w, n, o)))


@form("ConvGradInput", HWNC, legal=pointwise)
def product_back(op: Site) -> Output:
    """dx = dy·W."""
    n, o, h, w = op.sizes(0)
    c = op.dims(1)[1]
    dy, outer = op.core(0)
    weight = op.reshape(scaled_rows(op, op.plain(1), outer), (o, c))
    return op.reshape(op.MatMul(op.reshape(dy, (h * w * n, o)), weight), (h, w, n, c))


@form("ConvGradWeight", HWNC, legal=pointwise)
def product_weight(op: Site) -> Output:
    """dw = dyᵀ·x, the sum over places and examples in parts."""
    n, o, h, w = op.sizes(0)
    c = op.dims(1)[1]
    dy, outer = op.core(0)
    weight = contracted_rows(op, dy, op.read(1), h * w * n, o, c)
    return scaled_rows(op, op.reshape(weight, (o, c, 1, 1)), outer)


def _channels_first(layout: ChannelsFirst) -> None:
    @form("Conv", layout, legal=pointwise)
    def product(op: Site) -> Output:
        """y = W·x."""
        n, o, h, w = op.out
        c = op.dims(1)[1]
        y = op.MatMul(op.reshape(op.plain(1), (o, c)), op.reshape(op.read(0), (c, n * h * w)))
        return with_bias(op, op.reshape(y, layout.dims(op.out)))

    @form("ConvGradInput", layout, legal=pointwise)
    def product_back(op: Site) -> Output:
        """dx = Wᵀ·dy."""
        n, o, h, w = op.sizes(0)
        c = op.dims(1)[1]
        dy, outer = op.core(0)
        weight = op.reshape(scaled_rows(op, op.plain(1), outer), (o, c))
        dx = op.MatMul(op.Transpose(weight, perm=[1, 0]), op.reshape(dy, (o, n * h * w)))
        return op.reshape(dx, layout.dims((n, c, h, w)))

    @form("ConvGradWeight", layout, legal=pointwise, local=True)
    def product_weight(op: Site) -> Output:
        """dw = dy·xᵀ, the sum over places and examples in parts."""
        n, o, h, w = op.sizes(0)
        c = op.dims(1)[1]
        dy, outer = op.core(0)
        weight = contracted_columns(op, dy, op.read(1), n * h * w, o, c)
        return scaled_rows(op, op.reshape(weight, (o, c, 1, 1)), outer)


for _layout in (CNHW, CHWN):
    _channels_first(_layout)


def with_bias(op: Site, y: Value) -> Output:
    """The output of a convolution whose bias, operand 2, is yet to be added."""
    return y if op.value(2) is None else Pending(op.layout, y, shift=op.plain(2))


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
