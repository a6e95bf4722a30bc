"""docs/operators.md says what the tables say."""

from __future__ import annotations

import re

import pytest

from cnnc.autodiff import RULES
from cnnc.ir import GRAD_OPS
from scripts.operators_page import NEWEST, PAGE, page

WRITTEN = PAGE.read_text(encoding="utf-8")


@pytest.mark.skipif(f"to {NEWEST} and" not in WRITTEN, reason="written beside another version of onnx")
def test_the_page_is_that_of_the_tables() -> None:
    assert page() == WRITTEN, "stale: run `python scripts/operators_page.py`"


def test_the_page_names_every_rule_and_gradient_op() -> None:
    named = set(re.findall(r"`(\w+)`", page()))
    assert not (RULES.keys() | GRAD_OPS.keys()) - named


def test_a_reader_finds_what_is_refused() -> None:
    (line,) = (line for line in page().splitlines() if line.startswith("| `ConvTranspose` |"))
    _, _, opsets, gradients, attributes, refused, _ = (cell.strip() for cell in line.split("|"))
    assert opsets.startswith("7–")
    assert gradients == "X, W, B"
    assert {"auto_pad", "group", "output_padding", "output_shape"} <= set(attributes.split(", "))
    assert "output_padding=…, not below strides=…" in refused
