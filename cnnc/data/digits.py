"""The embedded data set: 1,797 handwritten digits of 8×8 pixels in ten classes.

Source: E. Alpaydin and C. Kaynak, "Optical Recognition of Handwritten Digits", UCI Machine Learning
Repository, 1998, https://doi.org/10.24432/C50P49, licence CC BY 4.0; see ATTRIBUTION beside this file.
``scripts/make_digits.py`` wrote the two archives.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from cnnc.data.dataset import Dataset, Wanted, numerals
from cnnc.data.npz import read_npz


def read_digits(wanted: Wanted) -> Dataset:
    """1,437 training and 360 test images, uint8 [n, 1, 8, 8]."""
    return replace(read_npz(Path(__file__).parent, wanted), name="digits", classes=numerals(10))
