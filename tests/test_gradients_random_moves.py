"""Rows that nobody wrote, of the operators that move elements and of reductions."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from cases import Case, Input, case
from cases.reduction import DRAWN
from cases.row import indices, normal, spaced, with_zeros
from hypothesis import assume
from hypothesis import strategies as st
from random_rows import Draw, Rows, check_random, dims, sizes

LETTERS = "abcde"
shapes = st.lists(sizes, min_size=1, max_size=4)


def symbolic(draw: Draw, shape: list[int]) -> list[int | str]:
    """Some of the sizes as symbols, which stand for sizes of their own."""
    names = iter(draw(st.permutations("NHWM")))
    return [next(names) if draw(st.booleans()) else size for size in shape]


@st.composite
def slices(draw: Draw) -> Case:
    shape = draw(shapes)
    axes = draw(st.lists(st.integers(0, len(shape) - 1), unique=True, min_size=1))
    starts, ends, steps = [], [], []
    for axis in axes:
        first, last = (draw(st.integers(0, shape[axis] - 1)) for _ in range(2))
        step = draw(st.integers(1, 3)) * (1 if first <= last else -1)
        end = last + (1 if step > 0 else -1)
        starts.append(first - shape[axis] if draw(st.booleans()) else first)
        ends.append(end if end >= 0 else -shape[axis] - 1)
        steps.append(step)
    axes = [axis - len(shape) if draw(st.booleans()) else axis for axis in axes]
    return case("Slice", dims(*shape), starts, ends, axes, steps)


@st.composite
def slices_of_unknown_sizes(draw: Draw) -> Case:
    """The symbols stand for 2 to 5, one run has N = 1: every slice takes the first or the last element."""
    shape = symbolic(draw, draw(shapes))
    axes = draw(st.lists(st.integers(0, len(shape) - 1), unique=True, min_size=1))
    steps = [draw(st.sampled_from([-3, -2, -1, 1, 2])) for _ in axes]
    starts = [draw(st.sampled_from([0, -9] if step > 0 else [-1, 9])) for step in steps]
    ends = [draw(st.sampled_from([1, 9] if step > 0 else [-9])) for step in steps]
    return case("Slice", dims(*shape), starts, ends, axes, steps)


@st.composite
def pads(draw: Draw) -> Case:
    shape = draw(st.lists(st.integers(2, 4), min_size=1, max_size=4))
    mode = draw(st.sampled_from(["constant", "constant", "edge", "reflect"]))
    low, high = (-1 if mode == "constant" else 0), 1 if mode == "reflect" else 3
    widths = [draw(st.integers(low, high)) for _ in range(2 * len(shape))]
    for axis, size in enumerate(shape):  # something stays
        if widths[axis] + widths[axis + len(shape)] + size < 1:
            widths[axis] = 0
    value = [""] if mode == "constant" and draw(st.booleans()) else []
    return case("Pad", dims(*shape), widths, *value, mode=mode)


@st.composite
def gathers(draw: Draw) -> Case:
    shape = symbolic(draw, draw(shapes))
    axis = draw(st.integers(-len(shape), len(shape) - 1))
    chosen = shape[axis]
    size = chosen if isinstance(chosen, int) else 1
    places = dims(*draw(st.lists(sizes, max_size=3)))
    if draw(st.booleans()):
        return case("Gather", dims(*shape), indices(places, size), axis=axis)
    random = np.random.default_rng(draw(st.integers(0, 99)))
    known = random.integers(-size, size, [int(d) for d in places.split()])
    return case("Gather", dims(*shape), known, axis=axis)


@st.composite
def gathers_nd(draw: Draw) -> Case:
    shape = draw(shapes)
    batch = draw(st.integers(0, len(shape) - 1))
    depth = draw(st.integers(1, len(shape) - batch))
    lead = [*shape[:batch], *draw(st.lists(sizes, max_size=2))]
    assume(lead or batch + depth < len(shape))  # onnx infers no type of a scalar
    places = indices(dims(*lead, depth), min(shape[batch : batch + depth]))
    return case("GatherND", dims(*shape), places, batch_dims=batch)


@st.composite
def scatters(draw: Draw) -> Case:
    shape = draw(shapes)
    axis = draw(st.integers(0, len(shape) - 1))
    changed = [draw(sizes) if i == axis else size for i, size in enumerate(shape)]
    reduction = draw(st.sampled_from(["add", "mul", "max", "min"]))
    special: dict[str, Callable[[str], Input]] = {"add": normal, "mul": with_zeros}
    drawn = special.get(reduction, spaced)
    new = (lambda text: spaced(text, offset=0.05)) if drawn is spaced else drawn
    places = indices(dims(*changed), shape[axis])
    data, updates = drawn(dims(*shape)), new(dims(*changed))
    return case("ScatterElements", data, places, updates, axis=axis, reduction=reduction)


@st.composite
def tiles(draw: Draw) -> Case:
    shape = draw(shapes)
    return case("Tile", dims(*symbolic(draw, shape)), [draw(st.integers(1, 3)) for _ in shape])


@st.composite
def splits(draw: Draw) -> Case:
    lengths = draw(st.lists(sizes, min_size=1, max_size=3))
    shape = draw(shapes)
    axis = draw(st.integers(0, len(shape) - 1))
    shape[axis] = sum(lengths)
    used = draw(st.integers(1, len(lengths)))
    return case("Split", dims(*shape), lengths, axis=axis, outputs=len(lengths), projected=used)


@st.composite
def reductions(draw: Draw) -> Case:
    operator = draw(st.sampled_from(sorted(DRAWN)))
    shape = symbolic(draw, draw(shapes))
    axes = draw(st.lists(st.integers(0, len(shape) - 1), unique=True))
    axes = [axis - len(shape) if draw(st.booleans()) else axis for axis in axes]
    flags = {name: draw(st.integers(0, 1)) for name in ("keepdims", "noop_with_empty_axes")}
    return case(operator, DRAWN[operator](dims(*shape)), *([axes] if axes else []), **flags)


@st.composite
def einsums(draw: Draw) -> Case:
    size = {letter: draw(st.integers(1, 3)) for letter in LETTERS}
    diagonals = draw(st.integers(0, 2)) == 0
    letters = st.lists(st.sampled_from(LETTERS), unique=not diagonals, max_size=3).map("".join)
    terms = draw(st.lists(letters, min_size=1, max_size=3))
    result = "".join(letter for letter in draw(st.permutations(LETTERS))[:3] if letter in "".join(terms))
    operands = [dims(*(size[letter] for letter in term)) for term in terms]
    return case("Einsum", *operands, equation=f"{','.join(terms)}->{result}")


@pytest.mark.parametrize(
    "rows",
    [
        slices,
        slices_of_unknown_sizes,
        pads,
        gathers,
        gathers_nd,
        scatters,
        tiles,
        splits,
        reductions,
        einsums,
    ],
    ids=lambda rows: rows.__name__,
)
def test_random_rows(rows: Rows) -> None:
    check_random(rows)
