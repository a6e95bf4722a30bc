"""Rows that nobody wrote, of what slides over images, normalises or resamples them."""

from __future__ import annotations

from typing import Any

import pytest
from cases import Case, case, labels, off_zero
from cases.row import Attributes, fixed, inside
from hypothesis import assume
from hypothesis import strategies as st
from random_rows import Draw, Rows, ceil_modes, check_random, dims, sizes, windows


@st.composite
def transposed_convolutions(draw: Draw) -> Case:
    rank = draw(st.sampled_from([1, 2, 2, 3]))

    def each(strategy: st.SearchStrategy[int]) -> list[int]:
        return [draw(strategy) for _ in range(rank)]

    shape, kernel, strides, dilations = (each(st.integers(1, high)) for high in (3, 3, 3, 2))
    added = [draw(st.integers(0, stride - 1)) for stride in strides]
    natural = [
        (n - 1) * s + d * (k - 1) + 1 + more
        for n, s, d, k, more in zip(shape, strides, dilations, kernel, added, strict=True)
    ]
    attributes: dict[str, Any] = {"strides": strides, "dilations": dilations, "output_padding": added}
    if draw(st.booleans()):
        attributes["output_shape"] = [
            draw(st.integers(max(n, size - 3), size)) for n, size in zip(shape, natural, strict=True)
        ]  # ONNX infers none that is smaller than the input
        attributes["auto_pad"] = draw(st.sampled_from(["NOTSET", "SAME_UPPER", "SAME_LOWER"]))
    else:
        begins = [draw(st.integers(0, min(2, size - 1))) for size in natural]
        ends = [draw(st.integers(0, min(2, n - 1 - b))) for n, b in zip(natural, begins, strict=True)]
        attributes["pads"] = begins + ends
    group, inner, outer = draw(st.integers(1, 3)), draw(st.integers(1, 2)), draw(st.integers(1, 2))
    bias = [str(group * outer)] if draw(st.booleans()) else []
    return case(
        "ConvTranspose",
        dims("N", group * inner, *shape),
        dims(group * inner, outer, *kernel),
        *bias,
        group=group,
        **attributes,
    )


@st.composite
def lp_pools(draw: Draw) -> Case:
    shape, attributes = draw(windows(largest_pad=-1, dilated=True))
    flags: Attributes = {"ceil_mode": draw(ceil_modes(shape, attributes)), "p": draw(st.integers(1, 4))}
    return case("LpPool", off_zero(dims("N", 2, *shape)), **flags, **attributes)


@st.composite
def layer_normalizations(draw: Draw) -> Case:
    shape: list[int | str] = ["N", *draw(st.lists(st.integers(2, 4), min_size=1, max_size=3))]
    axis = draw(st.integers(1, len(shape) - 1))
    affine = [
        dims(
            *(
                1 if draw(st.integers(0, 3)) == 0 else size
                for size in shape[draw(st.integers(axis, len(shape) - 1)) :]
            )
        )
        for _ in range(draw(st.integers(1, 2)))
    ]
    axis -= len(shape) if draw(st.booleans()) else 0
    return case("LayerNormalization", dims(*shape), *affine, axis=axis, epsilon=0.1)


@st.composite
def local_response_normalizations(draw: Draw) -> Case:
    shape = dims("N", draw(st.integers(1, 7)), draw(sizes), draw(sizes))
    size = draw(st.sampled_from([1, 3, 5, 7]))
    alpha, beta = draw(st.sampled_from([0.1, 1.0, 3.0])), draw(st.sampled_from([0.5, 0.75, 1.0, 2.0]))
    return case("LRN", shape, size=size, alpha=alpha, beta=beta, bias=draw(st.sampled_from([1.0, 2.0])))


@st.composite
def resizes(draw: Draw) -> Case:
    """By coordinates on which the runtimes agree."""
    shape = [draw(st.integers(2, 5)) for _ in range(2)]
    sizes = [draw(st.integers(2, 9)) for _ in range(2)]
    return case(
        "Resize",
        dims("N", draw(st.integers(1, 2)), *shape),
        *(None, None, sizes),
        mode=draw(st.sampled_from(["linear", "cubic"])),
        coordinate_transformation_mode=draw(
            st.sampled_from(["half_pixel", "half_pixel_symmetric", "align_corners", "asymmetric"])
        ),
        axes=[2, 3],
    )


@st.composite
def resizes_of_kept_aspect(draw: Draw) -> Case:
    """All by the scale that one of the axes asks for."""
    shape = [draw(st.integers(2, 7)) for _ in range(2)]
    sizes = [draw(st.integers(2, 9)) for _ in range(2)]
    policy = draw(st.sampled_from(["not_larger", "not_smaller"]))
    pick = min if policy == "not_larger" else max
    scale = pick(size / have for size, have in zip(sizes, shape, strict=True))
    assume(all(abs(scale * have % 1.0 - 0.5) > 0.01 for have in shape))  # half-way, runtimes round apart
    return case(
        "Resize",
        *(dims("N", 1, *shape), None, None, sizes),
        axes=[2, 3],
        mode=draw(st.sampled_from(["linear", "cubic"])),
        keep_aspect_ratio_policy=policy,
    )


@st.composite
def grid_samples(draw: Draw) -> Case:
    mode = draw(st.sampled_from(["nearest", "bilinear", "bicubic"]))
    shape = dims("N", draw(st.integers(1, 2)), draw(st.integers(1, 4)), draw(st.integers(1, 4)))
    points = dims("N", draw(st.integers(1, 3)), draw(st.integers(1, 3)), 2)
    return case(
        "GridSample",
        shape,
        fixed(points, -2.0, 2.0) if mode == "nearest" else inside(points, -2.0, 2.0),
        mode=mode,
        padding_mode=draw(st.sampled_from(["zeros", "border", "reflection"])),
        align_corners=draw(st.integers(0, 1)),
    )


@st.composite
def standard_losses(draw: Draw) -> Case:
    classes, space = draw(st.integers(2, 4)), [draw(sizes) for _ in range(draw(st.integers(0, 2)))]
    weights = [fixed(str(classes), 0.5, 2.0)] if draw(st.booleans()) else []
    reduction = draw(st.sampled_from(["none", "sum"]))  # the mean of ignored elements alone is 0/0
    ignored = {"ignore_index": draw(st.integers(0, classes - 1))} if draw(st.booleans()) else {}
    return case(
        draw(st.sampled_from(["NegativeLogLikelihoodLoss", "SoftmaxCrossEntropyLoss"])),
        dims("N", classes, *space),
        labels(dims("N", *space), classes),
        *weights,
        reduction=reduction,
        **ignored,
    )


@pytest.mark.parametrize(
    "rows",
    [
        transposed_convolutions,
        lp_pools,
        layer_normalizations,
        local_response_normalizations,
        resizes,
        resizes_of_kept_aspect,
        grid_samples,
        standard_losses,
    ],
    ids=lambda rows: rows.__name__,
)
def test_random_rows(rows: Rows) -> None:
    check_random(rows)
