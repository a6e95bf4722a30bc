"""Rows that nobody wrote: random shapes and attributes, checked as the table is.

``CNNC_HYPOTHESIS=nightly`` draws many more, and other ones each time.
"""

from __future__ import annotations

import pytest
from cases import Case, case, spaced
from cases.row import having
from hypothesis import strategies as st
from random_rows import Draw, Rows, broadcasts, ceil_modes, check_random, dims, sizes, windows


@st.composite
def convolutions(draw: Draw) -> Case:
    shape, attributes = draw(windows(largest_pad=1, dilated=True))
    group, inner, outer = draw(st.integers(1, 3)), draw(st.integers(1, 2)), draw(st.integers(1, 2))
    weight = dims(group * outer, inner, *attributes["kernel_shape"])
    bias = [str(group * outer)] if draw(st.booleans()) else []
    return case("Conv", dims("N", group * inner, *shape), weight, *bias, group=group, **attributes)


@st.composite
def max_pools(draw: Draw) -> Case:
    shape, attributes = draw(windows(largest_pad=-1, dilated=True))
    return case(
        "MaxPool", spaced(dims("N", 2, *shape)), ceil_mode=draw(ceil_modes(shape, attributes)), **attributes
    )


@st.composite
def average_pools(draw: Draw) -> Case:
    shape, attributes = draw(windows(largest_pad=-1))
    ceil_mode, include = draw(ceil_modes(shape, attributes)), draw(st.integers(0, 1))
    pool = having(ceil_mode=ceil_mode, count_include_pad=include)
    return case("AveragePool", dims("N", 2, *shape), **pool, **attributes)


@st.composite
def gemms(draw: Draw) -> Case:
    n, k, m = draw(st.one_of(sizes, st.just("N"))), draw(sizes), draw(sizes)
    trans_a, trans_b = draw(st.integers(0, 1)), draw(st.integers(0, 1))
    c = draw(st.sampled_from([[], [dims(n, m)], [dims(m)], [dims(1, m)], [dims(n, 1)], [""]]))
    alpha, beta = draw(st.sampled_from([1.0, -0.5])), draw(st.sampled_from([1.0, 2.0]))
    operands = dims(k, n) if trans_a else dims(n, k), dims(m, k) if trans_b else dims(k, m)
    return case("Gemm", *operands, *c, alpha=alpha, beta=beta, transA=trans_a, transB=trans_b)


@st.composite
def products(draw: Draw) -> Case:
    """MatMul with batch dimensions that broadcast, or vectors."""
    k = draw(sizes)
    left, right = draw(broadcasts())
    a = draw(st.sampled_from([dims(k), dims(*left, draw(sizes), k)]))
    b = draw(st.sampled_from([dims(k), dims(*right, k, draw(sizes))]))
    return case("MatMul", a, b)


@st.composite
def arithmetic(draw: Draw) -> Case:
    left, right = draw(broadcasts())
    return case(draw(st.sampled_from(["Add", "Sub", "Mul", "Sum"])), dims(*left), dims(*right))


@st.composite
def reductions(draw: Draw) -> Case:
    shape = draw(st.lists(sizes, min_size=1, max_size=4))
    axes = draw(st.lists(st.integers(0, len(shape) - 1), unique=True))
    axes = [axis - len(shape) if draw(st.booleans()) else axis for axis in axes]
    operator = draw(st.sampled_from(["ReduceSum", "ReduceMean"]))
    flags = {name: draw(st.integers(0, 1)) for name in ("keepdims", "noop_with_empty_axes")}
    return case(operator, dims(*shape), *([axes] if axes else []), **flags)


@st.composite
def concatenations(draw: Draw) -> Case:
    shape = draw(st.lists(sizes, min_size=1, max_size=3))
    axis = draw(st.integers(-len(shape), len(shape) - 1))
    parts = []
    for size in draw(st.lists(sizes, min_size=1, max_size=3)):
        shape[axis] = size
        parts.append(dims(*shape))
    return case("Concat", *parts, axis=axis)


@st.composite
def transpositions(draw: Draw) -> Case:
    shape = draw(st.lists(sizes, min_size=1, max_size=4))
    return case("Transpose", dims(*shape), perm=draw(st.permutations(range(len(shape)))))


@pytest.mark.parametrize(
    "rows",
    [
        convolutions,
        max_pools,
        average_pools,
        gemms,
        products,
        arithmetic,
        reductions,
        concatenations,
        transpositions,
    ],
    ids=lambda rows: rows.__name__,
)
def test_random_rows(rows: Rows) -> None:
    check_random(rows)
