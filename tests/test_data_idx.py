"""Reading IDX files in all the spellings of their names."""

import gzip
import struct
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cnnc.bundle import TargetSpec, TensorSpec
from cnnc.data import files, load
from cnnc.data.checking import check_split
from cnnc.errors import DataError

X = np.arange(3 * 4 * 5, dtype=np.uint8).reshape(3, 4, 5)
Y = np.array([2, 0, 1], dtype=np.uint8)


def idx(array: np.ndarray, kind: int = 8) -> bytes:
    return struct.pack(f">HBB{array.ndim}I", 0, kind, array.ndim, *array.shape) + array.tobytes()


def save(folder: Path, dot: str = "-", zipped: bool = False) -> Path:
    for prefix in ("train", "t10k"):
        for stem, array in ((f"images{dot}idx3-ubyte", X), (f"labels{dot}idx1-ubyte", Y)):
            data = idx(array)
            path = folder / f"{prefix}-{stem}{'.gz' if zipped else ''}"
            path.write_bytes(gzip.compress(data) if zipped else data)
    return folder


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("dot", ["-", "."])
def test_images_and_labels_come_back(tmp_path: Path, dot: str, zipped: bool) -> None:
    dataset = load(save(tmp_path, dot, zipped))
    for split in (dataset.train, dataset.test):
        np.testing.assert_array_equal(split.images, X[:, None])
        np.testing.assert_array_equal(split.labels, Y)
        assert split.images.dtype == np.uint8
        assert split.labels.dtype == np.int64


def test_a_plain_file_goes_before_its_gz(tmp_path: Path) -> None:
    save(tmp_path)
    (tmp_path / "train-images-idx3-ubyte.gz").write_bytes(b"unread")
    assert len(load(tmp_path).train) == 3


@pytest.mark.parametrize(
    "name", [f"{s}-{a}-ubyte" for s in ("train", "t10k") for a in ("images-idx3", "labels-idx1")]
)
def test_a_missing_file_is_named(tmp_path: Path, name: str) -> None:
    save(tmp_path)
    (tmp_path / name).unlink()
    with pytest.raises(DataError, match=f"lacks {name}"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "empty"),
        (b"\0\0", "not that of 3-axis unsigned bytes"),
        (b"hello, this is text", "not that of 3-axis unsigned bytes"),
        (idx(X)[:15], "its header is cut short"),
        (idx(X)[:-1], "claims 60 bytes, only 59 follow"),
        (idx(X) + b"\0", "claims 60 bytes, (61|more) follow"),
        (idx(X) + b"\0\1\2", "claims 60 bytes, (63|more) follow"),
        (idx(X, kind=13), "not that of 3-axis unsigned bytes"),
        (idx(Y), "not that of 3-axis unsigned bytes"),
        (struct.pack(">HBB3I", 0, 8, 3, 2**31, 2**31, 2**31), "claims 9903520314283042199192993792 bytes"),
    ],
)
@pytest.mark.parametrize("zipped", [False, True])
def test_damaged_files_are_refused(tmp_path: Path, data: bytes, message: str, zipped: bool) -> None:
    save(tmp_path, zipped=zipped)
    path = tmp_path / f"train-images-idx3-ubyte{'.gz' if zipped else ''}"
    path.write_bytes(gzip.compress(data) if zipped and data else data)
    with pytest.raises(DataError, match=message) as error:
        load(tmp_path)
    assert error.value.where == str(path)


@pytest.mark.parametrize("cut", [5, 20, -1])
def test_a_cut_gz_is_refused(tmp_path: Path, cut: int) -> None:
    save(tmp_path, zipped=True)
    path = tmp_path / "train-labels-idx1-ubyte.gz"
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(DataError, match="not a whole IDX file"):
        load(tmp_path)


def test_a_plain_file_named_gz_is_refused(tmp_path: Path) -> None:
    save(tmp_path, zipped=True)
    (tmp_path / "train-labels-idx1-ubyte.gz").write_bytes(idx(Y))
    with pytest.raises(DataError, match="Not a gzipped file"):
        load(tmp_path)


@pytest.mark.parametrize("zipped", [False, True])
def test_what_is_wrong_is_told_of_the_file_it_is_in(tmp_path: Path, zipped: bool) -> None:
    dataset = load(save(tmp_path, zipped=zipped))
    end = ".gz" if zipped else ""
    for split, prefix in ((dataset.train, "train"), (dataset.test.take(slice(2)), "t10k")):
        spec = TensorSpec("image", "float32", ("N", 1, 4, 5))
        target = TargetSpec("label", "class", "int64", ("N",))
        with pytest.raises(DataError, match="classes are 0 to 1") as error:
            check_split(split, spec, target, 2, split.where)
        assert error.value.where == str(tmp_path / f"{prefix}-labels-idx1-ubyte{end}")
        with pytest.raises(DataError, match="the images are") as error:
            check_split(split, replace(spec, shape=("N", 1, 5, 5)), target, 3, split.where)
        assert error.value.where == str(tmp_path / f"{prefix}-images-idx3-ubyte{end}")


def test_images_and_labels_are_as_many(tmp_path: Path) -> None:
    save(tmp_path)
    (tmp_path / "t10k-labels-idx1-ubyte").write_bytes(idx(Y[:2]))
    with pytest.raises(DataError, match="2 labels for 3 images"):
        load(tmp_path)


def test_a_bomb_is_refused_by_the_size_of_the_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "physical_memory", lambda: 2**20)
    save(tmp_path, zipped=True)
    bomb = gzip.compress(idx(np.zeros((2**11, 2**5, 2**5), np.uint8)))
    (tmp_path / "train-images-idx3-ubyte.gz").write_bytes(bomb)
    with pytest.raises(DataError, match="GiB of memory"):
        load(tmp_path)
