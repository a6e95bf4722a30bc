"""3×3 convolutions as Winograd F(4×4, 3×3), made of matrix products in [H, W, N, C].

Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks", 2016. The transforms act on space alone,
so in this layout each is one product with a constant banded matrix: [6·t, H] takes rows to t overlapping
tiles of 6 (padding and odd sizes are rows of zeros), [P, 6·t] takes them to P rows of output. Between them
one product of channels for each of the 36 elements of a tile: four times fewer multiplications than the
convolution has, in all three passes. The transformed input serves the forward pass and the weight gradient,
the transformed dy both gradients.

Rounding differs from a direct convolution's by up to about ten times float32's: these forms are not exact.
"""

from __future__ import annotations

from math import prod

import numpy as np
import numpy.typing as npt

from cnnc.ir import sizes_of
from cnnc.layout.form import Output, Site, Value, form
from cnnc.layout.order import HWNC
from cnnc.layout.products import scaled_rows, with_bias

Matrix = npt.NDArray[np.float64]

INPUT = np.array(
    [
        [4, 0, -5, 0, 1, 0],
        [0, -4, -4, 1, 1, 0],
        [0, 4, -4, -1, 1, 0],
        [0, -2, -1, 2, 1, 0],
        [0, 2, -1, -2, 1, 0],
        [0, 4, 0, -5, 0, 1],
    ],
    np.float64,
)
"""Bᵀ of the paper."""
FILTER = np.array(
    [
        [1 / 4, 0, 0],
        [-1 / 6, -1 / 6, -1 / 6],
        [-1 / 6, 1 / 6, -1 / 6],
        [1 / 24, 1 / 12, 1 / 6],
        [1 / 24, -1 / 12, 1 / 6],
        [0, 0, 1],
    ]
)
"""G of the paper."""
OUTPUT = np.array(
    [[1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1]], np.float64
)
"""Aᵀ of the paper."""
FILTERS = np.einsum("ai,bj->abij", FILTER, FILTER).reshape(36, 9)
"""Both applications of G as one matrix: [36, 9]."""


def tiles(count: int) -> int:
    """Tiles of 4 that cover `count` outputs."""
    return -(-count // 4)


def grouped(count: int) -> int:
    """How many tiles the output transform takes at once: two, where pairs cover `count` outputs exactly.

    Small blocks leave out the zeros of the banded matrix; single tiles are too small for fast products.
    """
    return 2 if count % 8 == 0 else tiles(count)


def input_matrix(size: int, pad: int, count: int) -> Matrix:
    """[6·t, size]: element a of tile k, which begins at 4k - pad; rows (group of tiles, a, tile in it)."""
    t, group = tiles(count), grouped(count)
    matrix = np.zeros((t // group, 6, group, size))
    for k in range(t):
        for i in range(6):
            row = 4 * k + i - pad
            if 0 <= row < size:
                matrix[k // group, :, k % group, row] = INPUT[:, i]
    return matrix.reshape(6 * t, size)


def output_matrix(count: int) -> Matrix:
    """[4·group, 6·group], or fewer rows: the outputs of one group of tiles, those beyond `count` left out."""
    group = grouped(count)
    matrix = np.zeros((4 * group, 6, group))
    for k in range(group):
        matrix[4 * k : 4 * k + 4, :, k] = OUTPUT
    return matrix.reshape(4 * group, 6 * group)[: min(4 * group, count)]


def _legal(op: Site) -> bool:
    window, dims = op.window, op.dims(op.named("w"))
    return (
        window.kernel_shape == (3, 3)
        and window.strides == (1, 1)
        and window.dilations == (1, 1)
        and op.attr("group", 1) == 1
        and len(dims) == 4
        and all(0 <= pad <= 2 for pad in window.pads)
        and min(dims[:2]) >= 8
    )


@form("Conv", HWNC, legal=_legal, exact=False, first=lambda op: not op.one_block)
def winograd(op: Site) -> Output:
    """Input transform, 36 products of channels, output transform."""
    n, o, p, q = op.out
    (rows, gv, _), (columns, gh, wide) = _groups(p), _groups(q)
    product = op.MatMul(_input(op, 0), op.Transpose(_filter(op, 1, None), perm=[0, 1, 2, 3, 4, 6, 5]))
    across = op.MatMul(
        op.constant(output_matrix(q)), op.reshape(product, (rows * 6 * gv, columns, 6 * gh, n * o))
    )
    down = op.MatMul(
        op.constant(output_matrix(p)), op.reshape(across, (rows, 6 * gv, columns * wide * n * o))
    )
    return with_bias(op, op.reshape(down, (p, q, n, o)))


@form("ConvGradInput", HWNC, legal=_legal, exact=False, first=lambda op: not op.one_block)
def winograd_back(op: Site) -> Output:
    """The transposed transforms, in turn: 36 products of channels between them."""
    n, c, h, w = op.sizes(op.named("x"))
    _, _, p, q = op.sizes(op.named("dy"))
    th, tw = tiles(p), tiles(q)
    window = op.window
    dy, outer = _output_gradient(op)
    product = op.MatMul(dy, _filter(op, op.named("w"), outer))
    across = op.MatMul(
        op.constant(input_matrix(w, window.begins[1], q).T), op.reshape(product, (6 * th, 6 * tw, n * c))
    )
    down = op.MatMul(
        op.constant(input_matrix(h, window.begins[0], p).T), op.reshape(across, (6 * th, w * n * c))
    )
    return op.reshape(down, (h, w, n, c))


@form("ConvGradWeight", HWNC, legal=_legal, exact=False, first=lambda op: not op.one_block)
def winograd_weight(op: Site) -> Output:
    """36 products of the transformed dy and input, summed over the tiles; the filter transform back."""
    o, c, _, _ = op.dims(op.named("w"))
    n, _, p, q = op.sizes(op.named("dy"))
    (rows, gv, _), (columns, gh, _) = _groups(p), _groups(q)
    dy, outer = _output_gradient(op)
    x = _input(op, op.named("x"))
    if o * c > gh * n * (o + c):  # a sum for each group of tiles would be larger than their operands
        dy, x = _tiles_together(op, dy), _tiles_together(op, x)
        total = op.MatMul(op.Transpose(dy, perm=[0, 2, 1]), x)
    else:
        total = op.MatMul(op.Transpose(dy, perm=[0, 1, 2, 3, 4, 6, 5]), x)
        if rows > 1:
            total = op.ReduceSum(op.reshape(total, (1, rows, 6 * gv * columns * 6 * o * c)), [1], keepdims=0)
        total = op.ReduceSum(op.reshape(total, (6, gv * columns, 6 * o * c)), [1], keepdims=0)
    weight = op.MatMul(op.Transpose(op.reshape(total, (36, o * c)), perm=[1, 0]), op.constant(FILTERS))
    return scaled_rows(op, op.reshape(weight, (o, c, 3, 3)), outer)


def _tiles_together(op: Site, transformed: Value) -> Value:
    """[groups, 6, tiles, groups, 6, tiles·N, C] to [36, all tiles·N, C]."""
    *places, inner, channels = sizes_of(transformed)
    order = np.arange(prod(places)).reshape(places).transpose(1, 4, 0, 2, 3).ravel()
    blocks = op.reshape(transformed, (len(order), inner * channels))
    return op.reshape(op.Gather(blocks, order, axis=0), (36, len(order) // 36 * inner, channels))


def _groups(count: int) -> tuple[int, int, int]:
    """For an axis of `count` outputs: groups of tiles, tiles in each, outputs of each."""
    group = grouped(count)
    return tiles(count) // group, group, min(4 * group, count)


def _input(op: Site, index: int) -> Value:
    """The input transform of an operand: [groups, 6, tiles, groups, 6, tiles·N, C], made once."""
    n, c, h, w = op.sizes(index)
    window = op.window
    p, q = (
        size + begin + end - 2 for size, begin, end in zip((h, w), window.begins, window.ends, strict=True)
    )

    def make() -> Value:
        down = op.MatMul(
            op.constant(input_matrix(h, window.begins[0], p)), op.reshape(op.read(index), (h, w * n * c))
        )
        across = op.MatMul(
            op.constant(input_matrix(w, window.begins[1], q)), op.reshape(down, (6 * tiles(p), w, n * c))
        )
        (rows, gv, _), (columns, gh, _) = _groups(p), _groups(q)
        return op.reshape(across, (rows, 6, gv, columns, 6, gh * n, c))

    return op.share("winograd input", op.value(index), window.pads, make=make)


def _output_gradient(op: Site) -> tuple[Value, Value | None]:
    """The transposed output transform of dy, made once, and the scale dy still lacks.

    [groups, 6, tiles, groups, 6, tiles·N, O].
    """
    index = op.named("dy")
    n, o, p, q = op.sizes(index)
    core, outer = op.core(index)

    def make() -> Value:
        (rows, gv, high), (columns, gh, wide) = _groups(p), _groups(q)
        down = op.MatMul(op.constant(output_matrix(p).T), op.reshape(core, (rows, high, q * n * o)))
        across = op.MatMul(
            op.constant(output_matrix(q).T), op.reshape(down, (rows * 6 * gv, columns, wide, n * o))
        )
        return op.reshape(across, (rows, 6, gv, columns, 6, gh * n, o))

    return op.share("winograd gradient", core, make=make), outer


def _filter(op: Site, index: int, scale: Value | None) -> Value:
    """The filter transform: [1, 6, 1, 1, 6, O, C], made once."""
    o, c, _, _ = op.dims(index)

    def make() -> Value:
        weight = scaled_rows(op, op.plain(index), scale)
        flat = op.Transpose(op.reshape(weight, (o * c, 9)), perm=[1, 0])
        return op.reshape(op.MatMul(op.constant(FILTERS), flat), (1, 6, 1, 1, 6, o, c))

    return op.share("winograd filter", op.value(index), scale, make=make)
