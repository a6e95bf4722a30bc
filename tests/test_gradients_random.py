"""Rows that nobody wrote: random shapes and attributes, checked as the table is.

``CNNC_HYPOTHESIS=nightly`` draws many more, and other ones each time.
"""

from __future__ import annotations

import os
from typing import Any

import pytest
from cases import Case, case, spaced
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from oracle import check

NIGHTLY = os.environ.get("CNNC_HYPOTHESIS") == "nightly"
SETTINGS = settings(
    max_examples=300 if NIGHTLY else 12,
    derandomize=not NIGHTLY,
    database=None,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)

Draw = Any
sizes = st.integers(1, 4)


def dims(*parts: Any) -> str:
    return " ".join(map(str, parts))


@st.composite
def windows(draw: Draw, largest_pad: int, dilated: bool = False) -> tuple[list[int], dict[str, list[int]]]:
    """Sizes of an input that holds a window or more, and attributes. A pool never sees pads only."""
    rank = draw(st.sampled_from([1, 2, 2, 2, 3]))

    def each(strategy: st.SearchStrategy[int], count: int = rank) -> list[int]:
        return [draw(strategy) for _ in range(count)]

    kernel, strides = each(st.integers(1, 3)), each(st.integers(1, 3))
    dilations = each(st.integers(1, 2)) if dilated else [1] * rank
    limits = [k + largest_pad for k in kernel * 2]
    pads = [min(pad, limit) for pad, limit in zip(each(st.integers(0, 3), 2 * rank), limits, strict=True)]
    spans = [d * (k - 1) + 1 for d, k in zip(dilations, kernel, strict=True)]
    least = [max(1, span - b - e) for span, b, e in zip(spans, pads[:rank], pads[rank:], strict=True)]
    if largest_pad < 0:
        least = [span if d > 1 else size for span, d, size in zip(spans, dilations, least, strict=True)]
    attributes = {"kernel_shape": kernel, "strides": strides, "pads": pads}
    return [size + draw(st.integers(0, 3)) for size in least], attributes | (
        {"dilations": dilations} if dilated else {}
    )


@st.composite
def ceil_modes(draw: Draw, shape: list[int], attributes: dict[str, list[int]]) -> int:
    """0 or 1; not 1 where that adds a window that begins in the end pad (see the rule's error)."""
    ceil_mode = draw(st.integers(0, 1))
    rank = len(shape)
    strides, pads = attributes["strides"], attributes["pads"]
    dilations = attributes.get("dilations", [1] * rank)
    for i, (size, k) in enumerate(zip(shape, attributes["kernel_shape"], strict=True)):
        room = size + pads[i] + pads[i + rank] - dilations[i] * (k - 1) - 1
        assume(not ceil_mode or -(-room // strides[i]) * strides[i] < size + pads[i])
    return ceil_mode


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
    flags = {"ceil_mode": draw(ceil_modes(shape, attributes)), "count_include_pad": draw(st.integers(0, 1))}
    return case("AveragePool", dims("N", 2, *shape), **flags, **attributes)


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
def broadcasts(draw: Draw) -> tuple[list[int | str], list[int | str]]:
    """Two shapes that broadcast: of other ranks, and 1 here and there."""
    shape = draw(st.lists(st.one_of(st.integers(2, 3), st.just("N")), max_size=3))
    assume(shape.count("N") <= 1)
    pair = []
    for _ in range(2):
        kept = shape[draw(st.integers(0, len(shape))) :]
        pair.append([1 if draw(st.booleans()) else size for size in kept])
    return pair[0], pair[1]


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
def test_random_rows(rows):
    @SETTINGS
    @given(rows())
    def holds(row: Case) -> None:
        check(row)

    holds()
