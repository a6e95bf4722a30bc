"""Rows that nobody wrote: elementwise operators, normalisation, and what the other files do not draw."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from cases import Case, Input, case, off_zero, positive, spaced
from cases.row import Attributes, conditions, fixed, indices, inside, off_jumps, with_zeros
from hypothesis import strategies as st
from random_rows import Draw, Rows, broadcasts, check_random, dims, sizes

Drawn = Callable[[str], Input | str]
NORMAL: Drawn = str

UNARY: dict[str, Drawn] = {
    **dict.fromkeys(
        [
            "Identity",
            "Neg",
            "Exp",
            "Erf",
            "Sin",
            "Cos",
            "Atan",
            "Sinh",
            "Cosh",
            "Asinh",
            "Sigmoid",
            "Tanh",
            "Softplus",
            "Mish",
        ],
        NORMAL,
    ),
    **dict.fromkeys(["Reciprocal", "Abs", "Relu", "Softsign"], off_zero),
    **dict.fromkeys(["Log", "Sqrt"], positive),
    **dict.fromkeys(["Asin", "Acos", "Atanh"], lambda shape: inside(shape, -0.9, 0.9)),
    "Tan": lambda shape: inside(shape, -1.25, 1.25),
    "Acosh": lambda shape: inside(shape, 1.25, 4.0),
    "HardSwish": lambda shape: inside(shape, -2.75, 2.75),
}
"""Operators without attributes, and where they are smooth."""

SLOPED: dict[str, tuple[Drawn, dict[str, list[float]]]] = {
    "LeakyRelu": (off_zero, {"alpha": [-0.5, 0.0, 0.125, 1.0, 1.5]}),
    "Elu": (off_zero, {"alpha": [-0.5, 0.5, 1.0, 2.0]}),
    "Selu": (off_zero, {"alpha": [0.5, 1.5], "gamma": [0.5, 1.25]}),
    "HardSigmoid": (off_jumps, {"alpha": [-0.5, 0.25], "beta": [0.0, 0.5, 1.0]}),
    "ThresholdedRelu": (off_jumps, {"alpha": [-1.0, 0.0, 0.5, 1.0]}),
    "Shrink": (off_jumps, {"lambd": [-0.5, 0.0, 0.5, 1.0], "bias": [-1.0, 0.0, 0.5]}),
}
"""Activations with attributes."""

shapes = st.lists(sizes, min_size=1, max_size=4)


@st.composite
def unary(draw: Draw) -> Case:
    op = draw(st.sampled_from(sorted(UNARY)))
    return case(op, UNARY[op](dims("N", *draw(shapes)[1:])))


@st.composite
def activations(draw: Draw) -> Case:
    op = draw(st.sampled_from(sorted(SLOPED)))
    drawn, attributes = SLOPED[op]
    chosen: Attributes = {name: draw(st.sampled_from(values)) for name, values in attributes.items()}
    return case(op, drawn(dims("N", *draw(shapes)[1:])), **chosen)


@st.composite
def prelus(draw: Draw) -> Case:
    shape = draw(shapes)
    slope = [draw(st.sampled_from([1, size])) for size in shape[draw(st.integers(0, len(shape))) :]]
    return case("PRelu", off_zero(dims(*shape)), dims(*slope))


@st.composite
def softmaxes(draw: Draw) -> Case:
    shape = draw(shapes)
    axis = draw(st.integers(-len(shape), len(shape) - 1))
    return case(draw(st.sampled_from(["Softmax", "LogSoftmax"])), dims(*shape), axis=axis)


@st.composite
def clips(draw: Draw) -> Case:
    low = draw(st.sampled_from([None, -0.53, inside("", -0.59, -0.56)]))
    high = draw(st.sampled_from([None, 0.27, inside("", 0.21, 0.24)]))
    return case("Clip", spaced(dims("N", *draw(shapes)[1:])), low, high)


@st.composite
def divisions_and_powers(draw: Draw) -> Case:
    left, right = (dims(*shape) for shape in draw(broadcasts()))
    op = draw(st.sampled_from(["Div", "Pow", "Mod"]))
    if op == "Mod":
        return case(op, off_jumps(left), inside(right, 0.9, 0.95), fmod=1)
    return case(op, left, off_zero(right)) if op == "Div" else case(op, positive(left), right)


@st.composite
def extremes(draw: Draw) -> Case:
    op = draw(st.sampled_from(["Max", "Min", "Mean"]))
    drawn = [spaced(dims(*shape), 0.03 * i) for i, shape in enumerate(draw(broadcasts()))]
    return case(op, *drawn, *([spaced("", 0.07)] if draw(st.booleans()) else []))


@st.composite
def choices(draw: Draw) -> Case:
    one, other = draw(broadcasts())
    condition = draw(st.sampled_from([one, other, []]))
    return case("Where", conditions(dims(*condition)), dims(*one), dims(*other))


@st.composite
def normalizations(draw: Draw) -> Case:
    channels, space = draw(st.integers(1, 3)), draw(st.lists(st.integers(3, 4), min_size=1, max_size=2))
    x, each = dims("N", channels, *space), str(channels)
    epsilon = draw(st.sampled_from([0.01, 0.1]))
    op = draw(st.sampled_from(["Instance", "Batch", "BatchTraining", "Lp"]))
    if op == "Lp":
        axis = draw(st.integers(-len(space) - 2, len(space) + 1))
        return case("LpNormalization", off_zero(x), axis=axis, p=draw(st.sampled_from([1, 2])))
    if op == "Instance":
        return case("InstanceNormalization", x, each, each, epsilon=epsilon)
    statistics = fixed(each), fixed(each, 0.5, 2.0)
    if op == "Batch":
        return case("BatchNormalization", x, each, each, *statistics, epsilon=epsilon)
    momentum = draw(st.sampled_from([0.0, 0.5, 0.9]))
    return case(
        *("BatchNormalizationTraining", x, each, each, *statistics),
        projected=1,
        epsilon=epsilon,
        momentum=momentum,
    )


@st.composite
def global_pools(draw: Draw) -> Case:
    op = draw(st.sampled_from(["GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool"]))
    shape = dims("N", *draw(st.lists(sizes, min_size=2, max_size=4)))
    if op == "GlobalLpPool":
        return case(op, off_zero(shape), p=draw(st.integers(1, 4)))
    return case(op, spaced(shape))


@st.composite
def blocks(draw: Draw) -> Case:
    size, channels = draw(st.integers(1, 3)), draw(st.integers(1, 2))
    space = [draw(st.integers(1, 3)) for _ in range(2)]
    if draw(st.booleans()):
        mode = draw(st.sampled_from(["DCR", "CRD"]))
        return case("DepthToSpace", dims("N", channels * size**2, *space), blocksize=size, mode=mode)
    return case("SpaceToDepth", dims("N", channels, *(size * n for n in space)), blocksize=size)


@st.composite
def ranks(draw: Draw) -> Case:
    """Flatten, Squeeze, Unsqueeze, Expand and Reshape."""
    shape = draw(shapes)
    op = draw(st.sampled_from(["Flatten", "Squeeze", "Unsqueeze", "Expand", "Reshape"]))
    if op == "Flatten":
        return case(op, dims(*shape), axis=draw(st.integers(-len(shape), len(shape))))
    if op == "Expand":
        wide = [size if size > 1 else draw(sizes) for size in shape]
        return case(op, dims(*shape), [*draw(st.lists(sizes, max_size=1)), *wide])
    if op == "Reshape":
        return case(op, dims(*shape), draw(st.sampled_from([[-1], [0, -1], [1, -1], [-1, shape[-1]]])))
    places = draw(st.lists(st.integers(0, len(shape)), min_size=1, max_size=2, unique=True))
    if op == "Unsqueeze":
        return case(op, dims(*shape), places)
    for place in sorted(places):
        shape.insert(place, 1)
    return case(op, dims(*shape), sorted(places))


@st.composite
def running_sums(draw: Draw) -> Case:
    shape = draw(shapes)
    flags = {name: draw(st.integers(0, 1)) for name in ("exclusive", "reverse")}
    return case("CumSum", dims(*shape), draw(st.integers(-len(shape), len(shape) - 1)), **flags)


@st.composite
def triangles(draw: Draw) -> Case:
    shape = dims("N", draw(sizes), draw(sizes))
    return case("Trilu", shape, np.array(draw(st.integers(-3, 3))), upper=draw(st.integers(0, 1)))


@st.composite
def selections(draw: Draw) -> Case:
    """TopK, Compress, GatherElements and OneHot."""
    shape = draw(shapes)
    axis = draw(st.integers(0, len(shape) - 1))
    signed = axis - len(shape) if draw(st.booleans()) else axis
    op = draw(st.sampled_from(["TopK", "Compress", "GatherElements", "OneHot"]))
    if op == "TopK":
        k = draw(st.integers(1, shape[axis]))
        flags = {"axis": signed, "largest": draw(st.integers(0, 1))}
        return case(op, spaced(dims(*shape)), [k], outputs=2, projected=1, **flags)
    if op == "OneHot":
        depth = draw(st.integers(1, 4))
        return case(op, indices(dims(*shape), depth), depth, "2", axis=signed)
    if op == "Compress":
        chosen = [True, *(draw(st.booleans()) for _ in range(shape[axis] - 1))]
        return case(op, dims(*shape), chosen, axis=signed)
    taken = [draw(sizes) if i == axis else size for i, size in enumerate(shape)]
    return case(op, dims(*shape), indices(dims(*taken), shape[axis]), axis=axis)


@st.composite
def scatters_nd(draw: Draw) -> Case:
    shape = draw(shapes)
    depth, count = draw(st.integers(1, len(shape))), draw(sizes)
    reduction = draw(st.sampled_from(["add", "mul"]))
    drawn: Drawn = with_zeros if reduction == "mul" else NORMAL
    places = indices(dims(count, depth), min(shape[:depth]))
    updates = drawn(dims(count, *shape[depth:]))
    return case("ScatterND", drawn(dims(*shape)), places, updates, reduction=reduction)


ROWS = [
    unary,
    activations,
    prelus,
    softmaxes,
    clips,
    divisions_and_powers,
    extremes,
    choices,
    normalizations,
    global_pools,
    blocks,
    ranks,
    running_sums,
    triangles,
    selections,
    scatters_nd,
]


@pytest.mark.parametrize("rows", ROWS, ids=lambda rows: rows.__name__)
def test_random_rows(rows: Rows) -> None:
    check_random(rows)
