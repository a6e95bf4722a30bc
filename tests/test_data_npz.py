"""Reading ``*train.npz`` and ``*test.npz``, and the data sets that come this way."""

import io
import os
import runpy
import struct
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cnnc.data import files, load
from cnnc.errors import DataError

MNIST = Path(os.environ.get("CNNC_TEST_MNIST", Path(__file__).parents[2] / "shared" / "data"))
X = np.arange(4 * 5 * 6, dtype=np.uint8).reshape(4, 5, 6)
Y = np.array([0, 1, 2, 1], dtype=np.uint8)


def save(folder: Path, x: object = X, y: object = Y) -> Path:
    """A data set whose two splits are the same."""
    for name in ("a-train.npz", "a-test.npz"):
        np.savez(folder / name, x=np.asarray(x), y=np.asarray(y))
    return folder


def zip_of(members: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return file.getvalue()


def npy(shape: str, descr: str = "|u1", data: bytes = b"") -> bytes:
    """A .npy file whose header says whatever one likes."""
    header = f"{{'descr': {descr!r}, 'fortran_order': False, 'shape': {shape}, }}".encode().ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + data


def test_images_and_labels_come_back(tmp_path: Path) -> None:
    dataset = load(save(tmp_path))
    assert dataset.name == tmp_path.name
    assert dataset.classes == ()
    assert dataset.train.images.dtype == np.uint8
    assert dataset.train.labels.dtype == np.int64
    np.testing.assert_array_equal(dataset.test.images, X[:, None])
    np.testing.assert_array_equal(dataset.test.labels, Y)
    assert dataset.test.where == str(tmp_path / "a-test.npz")


@pytest.mark.parametrize(
    ("shape", "wanted", "axis"),
    [
        ((4, 5, 6, 1), {}, 3),
        ((4, 1, 5, 6), {}, 1),
        ((4, 5, 6, 3), {}, 3),
        ((4, 3, 5, 6), {}, 1),
        ((4, 5, 6, 2), {"channels": 2}, 3),
        ((4, 3, 6, 1), {"channels": 3}, 1),
        ((4, 3, 6, 3), {"channels": 3, "size": (3, 6)}, 3),
        ((4, 3, 6, 1), {"channels": 1, "size": (3, 6)}, 3),
        ((4, 3, 6, 1), {"channels": 3, "size": (6, 1)}, 1),
    ],
)
def test_the_axis_of_the_channels_is_found(
    tmp_path: Path, shape: tuple[int, ...], wanted: dict[str, Any], axis: int
) -> None:
    x = np.arange(np.prod(shape), dtype=np.uint8).reshape(shape)
    images = load(save(tmp_path, x), **wanted).train.images
    np.testing.assert_array_equal(images, x.transpose(0, 3, 1, 2) if axis == 3 else x)
    assert images.flags.c_contiguous


@pytest.mark.parametrize(
    ("x", "dtype"),
    [
        (X.astype(np.int64), np.uint8),
        (X[:0], np.uint8),
        (X.astype(">u2"), np.uint8),
        (np.asfortranarray(X), np.uint8),
        (X.astype(np.float64), np.float32),
        (X.astype(">f4"), np.float32),
        (X.astype(np.float16), np.float32),
    ],
)
def test_images_of_other_types_become_uint8_or_float32(
    tmp_path: Path, x: np.ndarray, dtype: type[np.generic]
) -> None:
    images = load(save(tmp_path, x, Y[: len(x)])).train.images
    assert images.dtype == dtype
    assert images.dtype.isnative
    np.testing.assert_array_equal(images[:, 0], X[: len(x)])


@pytest.mark.parametrize(
    ("y", "dtype", "shape"),
    [
        (Y[:, None], np.int64, (4,)),
        (Y.astype(bool), np.int64, (4,)),
        (Y / 2, np.float32, (4,)),
        (np.ones((4, 3)), np.float32, (4, 3)),
    ],
)
def test_labels_are_indices_or_float_targets(
    tmp_path: Path, y: np.ndarray, dtype: type[np.generic], shape: tuple[int, ...]
) -> None:
    labels = load(save(tmp_path, y=y)).train.labels
    assert labels.dtype == dtype
    assert labels.shape == shape


def test_names_of_classes_are_taken_over(tmp_path: Path) -> None:
    assert load(save(tmp_path), classes=("a", "b", "c")).classes == ("a", "b", "c")


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (X[0], Y, r"x has the shape \[5, 6\]"),
        (X[..., None, None], Y, r"x has the shape \[4, 5, 6, 1, 1\]"),
        (np.zeros((4, 5, 6, 2)), Y, "neither axis 1 nor axis 3"),
        (np.zeros((4, 3, 6, 1)), Y, "both axis 1 and axis 3 could"),
        (np.zeros((4, 3, 3, 3)), Y, "both axis 1 and axis 3 could"),
        (X.astype(np.int16) * 3, Y, "x is int16 from 0 to 357"),
        (X.astype(np.int16) + 137, Y, "x is int16 from 137 to 256"),
        (X.astype(np.int16) - 1, Y, "x is int16 from -1 to 118"),
        (X > 3, Y, "x is bool"),
        (X.astype(np.complex64), Y, "x has dtype complex64"),
        (X.astype("S3"), Y, r"x has dtype \|S3"),
        (X, Y[:3], "x has 4 images, y has 3 labels"),
        (X, np.eye(4, dtype=int), r"y is int64 of shape \[4, 4\].*argmax"),
        (X, np.float32(1), r"y is float32 of shape \[\]"),
        (X, np.array([0, 1, 2, 2**64 - 1], np.uint64), "y holds the label 18446744073709551615"),
    ],
)
def test_unusable_arrays_are_refused(tmp_path: Path, x: object, y: object, message: str) -> None:
    with pytest.raises(DataError, match=message) as error:
        load(save(tmp_path, x, y))
    assert error.value.where == str(tmp_path / "a-train.npz")


def test_python_objects_are_not_unpickled(tmp_path: Path) -> None:
    save(tmp_path)
    np.savez(tmp_path / "a-test.npz", x=np.array([X, None], dtype=object), y=Y, allow_pickle=True)
    with pytest.raises(DataError, match="Python objects"):
        load(tmp_path)


GOOD = npy("(4, 5, 6)", data=X.tobytes())
LABELS = npy("(4,)", data=Y.tobytes())
WHOLE = zip_of({"x.npy": GOOD, "y.npy": LABELS})


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "empty"),
        (b"hello", "not a whole .npz"),
        (GOOD, "not a whole .npz"),
        (WHOLE[:200], "not a whole .npz"),
        (WHOLE.replace(X.tobytes(), X.tobytes()[::-1]), "CRC"),
        (zip_of({}), "lacks x and y; it holds nothing"),
        (zip_of({"x.npy": GOOD, "labels.npy": LABELS}), "lacks y; it holds labels, x"),
        (zip_of({"x": GOOD, "y": LABELS}), "no item named 'x.npy'"),
        (zip_of({"x.npy": npy("(2**62,)"), "y.npy": LABELS}), "not a whole .npz"),
        (zip_of({"x.npy": npy(f"({2**62}, 5, 6)"), "y.npy": LABELS}), "claims 138350580552821637"),
        (zip_of({"x.npy": npy("(4, 5, 7)", data=X.tobytes()), "y.npy": LABELS}), "claims 268 bytes"),
        (zip_of({"x.npy": npy("(4, 5, 5)", data=X.tobytes()), "y.npy": LABELS}), "claims 228 bytes"),
        (zip_of({"x.npy": npy("(-4, -5, 6)", data=X.tobytes()), "y.npy": LABELS}), r"shape \[-4, -5, 6\]"),
        (zip_of({"x.npy": GOOD, "y.npy": b"0"}), "not a whole .npz"),
    ],
)
def test_damaged_archives_are_refused(tmp_path: Path, data: bytes, message: str) -> None:
    save(tmp_path)
    (tmp_path / "a-train.npz").write_bytes(data)
    with pytest.raises(DataError, match=message) as error:
        load(tmp_path)
    assert error.value.where == str(tmp_path / "a-train.npz")


def test_an_archive_that_lies_about_its_members_size_is_refused_before_memory_is_taken(
    tmp_path: Path,
) -> None:
    save(tmp_path)
    shape, size = (2**20, 2**10, 2**10), 2**40 + 128
    honest = zip_of({"x.npy": npy(str(shape)), "y.npy": LABELS}, zipfile.ZIP_DEFLATED)
    directory = honest.index(b"PK\x01\x02")
    zip64 = struct.pack("<HHQ", 1, 8, size)  # the true size goes to an extra field, where four bytes are few
    lying = bytearray(honest)
    lying[directory + 24 : directory + 28] = b"\xff" * 4
    lying[directory + 30 : directory + 32] = struct.pack("<H", len(zip64))
    name_end = directory + 46 + len("x.npy")
    lying[name_end:name_end] = zip64
    end = lying.index(b"PK\x05\x06")
    length = struct.unpack_from("<I", lying, end + 12)[0]
    struct.pack_into("<I", lying, end + 12, length + len(zip64))
    (tmp_path / "a-train.npz").write_bytes(lying)
    with zipfile.ZipFile(tmp_path / "a-train.npz") as archive:
        assert archive.getinfo("x.npy").file_size == size
    with pytest.raises(DataError, match=f"x claims {size} bytes, which the file doesn't hold"):
        load(tmp_path)


def test_a_bomb_is_refused_by_the_size_of_the_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "physical_memory", lambda: 2**20)
    for name in ("train.npz", "test.npz"):
        np.savez_compressed(
            tmp_path / name, x=np.zeros((2**11, 2**5, 2**5), np.uint8), y=np.zeros(2**11, int)
        )
    with pytest.raises(DataError, match="GiB of memory"):
        load(tmp_path)


def test_a_failing_disk_is_told_from_a_damaged_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(path: Path) -> None:
        raise OSError(5, "Input/output error")

    save(tmp_path)
    monkeypatch.setattr(zipfile, "ZipFile", fail)
    with pytest.raises(DataError, match="this can't be read: Input/output error"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["a-train.npz"], r"no file named \*test.npz"),
        (["a-test.npz"], r"no file named \*train.npz"),
        (
            ["a-train.npz", "b-train.npz", "test.npz"],
            r"holds 2 files named \*train.npz \(a-train.npz, b-train",
        ),
    ],
)
def test_there_is_exactly_one_archive_a_split(tmp_path: Path, names: list[str], message: str) -> None:
    for name in names:
        np.savez(tmp_path / name, x=X, y=Y)
    with pytest.raises(DataError, match=message):
        load(tmp_path)


def test_a_folder_of_the_archives_name_is_refused(tmp_path: Path) -> None:
    save(tmp_path)
    (tmp_path / "a-train.npz").unlink()
    (tmp_path / "a-train.npz").mkdir()
    with pytest.raises(DataError, match="not a regular file"):
        load(tmp_path)


def test_the_digits() -> None:
    dataset = load("digits")
    assert dataset.train.images.shape == (1437, 1, 8, 8)
    assert dataset.test.images.shape == (360, 1, 8, 8)
    assert dataset.classes == tuple("0123456789")
    images = np.concatenate([dataset.train.images, dataset.test.images])
    original = np.round(images * (16 / 255))
    np.testing.assert_array_equal(np.round(original * 255 / 16), images)
    assert (original.min(), original.max()) == (0, 16)
    shares = np.bincount(dataset.test.labels) / np.bincount(
        np.concatenate([dataset.train.labels, dataset.test.labels])
    )
    assert np.abs(shares - 0.2).max() < 0.005
    assert len(np.unique(images.reshape(1797, -1), axis=0)) == 1797  # no image is in both splits


def test_the_digits_are_those_of_the_script(tmp_path: Path) -> None:
    pytest.importorskip("sklearn", reason="scikit-learn, the digits' source, is not installed")
    root = Path(__file__).parents[1]
    runpy.run_path(str(root / "scripts" / "make_digits.py"))["main"](tmp_path)
    for name in ("digits-train.npz", "digits-test.npz"):
        assert (tmp_path / name).read_bytes() == (root / "cnnc" / "data" / name).read_bytes()


def test_reading_them_imports_neither_onnx_nor_pillow() -> None:
    """A subprocess, since this one has imported everything."""
    program = "import sys, cnnc.data; cnnc.data.load('digits'); print(*sys.modules)"
    modules = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert {"onnx", "onnx_ir", "onnxruntime", "PIL"}.isdisjoint(modules.stdout.split())


def test_mnist_as_archives() -> None:
    if not any(MNIST.glob("*train.npz")):
        pytest.skip(f"no MNIST in {MNIST}; set CNNC_TEST_MNIST to a folder with its archives")
    dataset = load(MNIST)
    assert dataset.train.images.shape == (60000, 1, 28, 28)
    assert dataset.test.images.shape == (10000, 1, 28, 28)
    assert dataset.train.labels[:5].tolist() == [5, 0, 4, 1, 9]
    assert set(dataset.test.labels.tolist()) == set(range(10))
