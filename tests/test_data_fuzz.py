"""Damaged files never give anything but a DataError or a valid data set."""

import gzip
import io
import os
import struct
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from cnnc.data import Dataset, load, read_image
from cnnc.errors import DataError

EXAMPLES = int(os.environ.get("CNNC_FUZZ_EXAMPLES", "0"))
"""Examples of a longer, random run; by default there are 150 for each test, always the same."""
fuzzed = settings(max_examples=EXAMPLES or 150, derandomize=not EXAMPLES, deadline=None, database=None)

X = np.arange(2 * 6 * 7, dtype=np.uint8).reshape(2, 6, 7)
Y = np.array([1, 0], dtype=np.uint8)


def npz(save: Callable[..., None]) -> bytes:
    file = io.BytesIO()
    save(file, x=X, y=Y)
    return file.getvalue()


def picture(form: str) -> bytes:
    file = io.BytesIO()
    Image.fromarray(X[0]).save(file, form)
    return file.getvalue()


IDX = struct.pack(">HBB3I", 0, 8, 3, *X.shape) + X.tobytes()
IDX_LABELS = struct.pack(">HBBI", 0, 8, 1, 2) + Y.tobytes()
FILES = {
    "train.npz": npz(np.savez),
    "z-train.npz": npz(np.savez_compressed),
    "train-images-idx3-ubyte": IDX,
    "train-images-idx3-ubyte.gz": gzip.compress(IDX, mtime=0),
    **{f"image.{form}": picture(form) for form in ("png", "jpeg", "bmp", "ppm", "tiff", "webp")},
}


def sound_partners(folder: Path, name: str) -> None:
    """The other files that make a data set with the file `name`."""
    if name.endswith(".npz"):
        (folder / "test.npz").write_bytes(FILES["train.npz"])
    elif "idx" in name:
        (folder / "train-labels-idx1-ubyte").write_bytes(IDX_LABELS)
        (folder / "t10k-labels-idx1-ubyte").write_bytes(IDX_LABELS)
        (folder / "t10k-images-idx3-ubyte").write_bytes(IDX)


@st.composite
def damaged(draw: st.DrawFn, data: bytes) -> bytes:
    """`data` with some bytes changed, one or several at a place, and perhaps a part cut out or doubled."""
    mutable = bytearray(data)
    for _ in range(draw(st.integers(0, 4))):
        at = draw(st.integers(0, len(mutable) - 1))
        new = draw(st.one_of(st.binary(min_size=1, max_size=1), st.binary(min_size=1, max_size=8)))
        mutable[at : at + len(new)] = new
    if draw(st.booleans()):
        begin, end = sorted(draw(st.tuples(*[st.integers(0, len(mutable))] * 2)))
        mutable[begin:end] = mutable[begin:end] * draw(st.sampled_from([0, 2]))
    return bytes(mutable)


def attempt(read: Callable[[], object]) -> object:
    """What `read` returns, or the DataError it raises; anything else it raises fails the test."""
    try:
        return read()
    except DataError as error:
        return error


def is_allowed(result: object, path: Path) -> bool:
    """Whether `result` is a valid data set, a valid image, or an error that names `path`."""
    if isinstance(result, DataError):
        return str(path) in str(result)
    if isinstance(result, Dataset):
        return all(
            split.images.ndim == 4
            and split.images.dtype in (np.uint8, np.float32)
            and split.labels.dtype in (np.int64, np.float32)
            and len(split.images) == len(split.labels)
            for split in (result.train, result.test)
        )
    return isinstance(result, np.ndarray) and result.dtype == np.uint8 and result.ndim == 3


@pytest.mark.parametrize("name", FILES)
def test_damaged_bytes_give_a_data_error_or_a_valid_result(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    sound_partners(tmp_path, name)
    read = partial(read_image, path, 1) if name.startswith("image") else partial(load, tmp_path)

    @fuzzed
    @given(damaged(FILES[name]))
    def damage(data: bytes) -> None:
        path.write_bytes(data)
        assert is_allowed(attempt(read), path)

    path.write_bytes(FILES[name])
    assert is_allowed(read(), path)
    damage()


HEADERS = st.tuples(
    st.one_of(
        st.sampled_from(
            ["|u1", "<f4", ">i8", "|O", "|b1", "<U3", "|V3", "<c8", "<M8[s]", "<f2", "|u1,<f4", "", "x"]
        ),
        st.lists(st.tuples(st.text(max_size=2), st.just("<f4")), max_size=2),
        st.none(),
    ),
    st.sampled_from([True, False, 0, 1, "no"]),
    st.one_of(
        st.lists(st.integers(-3, 2**70) | st.integers(0, 4), max_size=5).map(tuple), st.text(max_size=3)
    ),
    st.integers(1, 3),
)


def test_odd_headers_of_arrays_give_a_data_error_or_a_valid_result(tmp_path: Path) -> None:
    sound_partners(tmp_path, ".npz")

    @fuzzed
    @given(HEADERS, st.binary(max_size=64))
    def read(fields: tuple[object, object, object, int], data: bytes) -> None:
        descr, fortran, shape, version = fields
        header = repr({"descr": descr, "fortran_order": fortran, "shape": shape}).encode() + b"\n"
        length = struct.pack("<H" if version == 1 else "<I", len(header))
        with zipfile.ZipFile(tmp_path / "train.npz", "w") as archive:
            for name in ("x.npy", "y.npy"):
                archive.writestr(name, b"\x93NUMPY" + bytes([version, 0]) + length + header + data)
        assert is_allowed(attempt(partial(load, tmp_path)), tmp_path)

    read()
