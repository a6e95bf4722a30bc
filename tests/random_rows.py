"""What the tests of random rows share: how many are drawn, sizes, windows, and the check itself.

``CNNC_HYPOTHESIS=nightly`` draws many more rows, and other ones each time.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from cases import Case
from cases.row import Attributes
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

Draw = st.DrawFn
Rows = Callable[[], st.SearchStrategy[Case]]
sizes = st.integers(1, 4)


def dims(*parts: Any) -> str:
    return " ".join(map(str, parts))


@st.composite
def windows(draw: Draw, largest_pad: int, dilated: bool = False) -> tuple[list[int], Attributes]:
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
def ceil_modes(draw: Draw, shape: list[int], attributes: Attributes) -> int:
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
def broadcasts(draw: Draw) -> tuple[list[int | str], list[int | str]]:
    """Two shapes that broadcast: of other ranks, and 1 here and there."""
    shape = draw(st.lists(st.one_of(st.integers(2, 3), st.just("N")), max_size=3))
    assume(shape.count("N") <= 1)
    pair = []
    for _ in range(2):
        kept = shape[draw(st.integers(0, len(shape))) :]
        pair.append([1 if draw(st.booleans()) else size for size in kept])
    return pair[0], pair[1]


def check_random(rows: Rows) -> None:
    """Check rows as the table is checked."""

    @SETTINGS
    @given(rows())
    def holds(row: Case) -> None:
        check(row)

    holds()
