"""IDX, the format of MNIST: four files of the standard names, plain or ``.gz``.

A file is a big-endian header (two zero bytes, the element type, the number of axes, the length of each axis
as uint32) and then the elements in row-major order. Images are uint8 [n, H, W], labels uint8 [n]. Source:
Y. LeCun, C. Cortes, C. Burges, "The MNIST database of handwritten digits".
"""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np
import numpy.typing as npt

from cnnc.data.dataset import Dataset, Split, Wanted
from cnnc.data.files import DEFLATE_RATIO, ensure_fits_memory, file_size, reading
from cnnc.errors import DataError

PATTERNS = ("train-*idx?-ubyte*", "t10k-*idx?-ubyte*")
UBYTE = 0x08
"""The type code of unsigned bytes, the only one of the standard files."""


def read_idx(folder: Path, wanted: Wanted) -> Dataset:
    """Read the four files in `folder`. Raises DataError."""
    train, test = (_read_split(folder, prefix) for prefix in ("train", "t10k"))
    return Dataset(folder.resolve().name, train, test, wanted.classes)


def _read_split(folder: Path, prefix: str) -> Split:
    of_images, of_labels = _find(folder, f"{prefix}-images", 3), _find(folder, f"{prefix}-labels", 1)
    images, labels = read_idx_file(of_images, axes=3), read_idx_file(of_labels, axes=1)
    if len(images) != len(labels):
        raise DataError(f"this has {len(labels)} labels for {len(images)} images.", where=str(of_labels))
    return Split(images[:, None], labels.astype(np.int64), str(of_images), labels_where=str(of_labels))


def _find(folder: Path, stem: str, axes: int) -> Path:
    """The file in the first spelling that exists; a plain file goes before its ``.gz``."""
    names = [f"{stem}{dot}idx{axes}-ubyte{end}" for dot in "-." for end in ("", ".gz")]
    for name in names:
        if (folder / name).exists():
            return folder / name
    raise DataError(
        f"this folder lacks {names[0]} (or {', '.join(names[1:])}).",
        where=str(folder),
        hint="The images and labels of both train and t10k make a data set.",
    )


def read_idx_file(path: Path, axes: int) -> npt.NDArray[np.uint8]:
    """The uint8 array with this number of axes in an IDX file, plain or ``.gz``. Raises DataError."""
    size = file_size(path)
    zipped = path.suffix == ".gz"
    with reading(path, "IDX file"), gzip.open(path) if zipped else path.open("rb") as file:
        magic, sizes = file.read(4), file.read(4 * axes)
        if magic != bytes([0, 0, UBYTE, axes]):
            raise ValueError(f"its header is not that of {axes}-axis unsigned bytes")
        if len(sizes) < 4 * axes:
            raise ValueError("its header is cut short")
        shape = struct.unpack(f">{axes}I", sizes)
        claimed = int(np.prod(shape, dtype=object))
        if claimed > size * (DEFLATE_RATIO if zipped else 1):
            raise ValueError(f"its header claims {claimed} bytes, the file has {size}")
        ensure_fits_memory(claimed, path)
        data = file.read(claimed + 1)
        if len(data) < claimed:
            raise ValueError(f"its header claims {claimed} bytes, only {len(data)} follow")
        if len(data) > claimed:
            rest = "more" if zipped else str(size - len(magic) - len(sizes))
            raise ValueError(f"its header claims {claimed} bytes, {rest} follow")
        return np.frombuffer(data, dtype=np.uint8).reshape(shape)
