"""Write cnnc's embedded digits from scikit-learn's copy: ``python scripts/make_digits.py [FOLDER]``.

Source: E. Alpaydin and C. Kaynak, "Optical Recognition of Handwritten Digits", UCI Machine Learning
Repository, 1998, https://doi.org/10.24432/C50P49, licence CC BY 4.0 (cnnc/data/ATTRIBUTION). Needs
scikit-learn, which cnnc itself doesn't. The same input gives the same bytes: the split is drawn by cnnc's own
generator, and the archives are stored without compression.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cnnc.data import epoch_order

TEST_SIZE = 360
SEED = 0


def stratified_test_indices(labels: npt.NDArray[Any], count: int, seed: int) -> npt.NDArray[np.int64]:
    """`count` sorted indices, each class in proportion (by largest remainders), a function of `seed`."""
    classes, sizes = np.unique(labels, return_counts=True)
    shares = sizes * count / len(labels)
    counts = np.floor(shares).astype(int)
    counts[np.argsort(counts - shares, kind="stable")[: count - counts.sum()]] += 1
    drawn = [
        np.flatnonzero(labels == label)[epoch_order(size, seed, epoch=index)[:wanted]]
        for index, (label, size, wanted) in enumerate(zip(classes, sizes, counts, strict=True))
    ]
    return np.sort(np.concatenate(drawn))


def main(folder: Path) -> None:
    """Write ``digits-train.npz`` and ``digits-test.npz`` to `folder`."""
    from sklearn.datasets import load_digits  # type: ignore

    bunch: Any = load_digits()
    images = np.round(bunch.images * 255 / 16).astype(np.uint8)
    labels = bunch.target.astype(np.uint8)
    test = np.zeros(len(labels), dtype=bool)
    test[stratified_test_indices(labels, TEST_SIZE, SEED)] = True
    np.savez(folder / "digits-train.npz", x=images[~test], y=labels[~test])
    np.savez(folder / "digits-test.npz", x=images[test], y=labels[test])


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parents[1] / "cnnc" / "data")
