"""Tar shards, CIFAR and Parquet files: read as others write them, streamed alike, refused where bad."""

from __future__ import annotations

import io
import json
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from command_line import call
from faults import truncate
from PIL import Image
from wild import encoded, folders, picture

from cnnc.data import Dataset, batches, load, parquet
from cnnc.data.shards import Rows
from cnnc.errors import DataError


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CNNC_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def shard(path: Path, members: dict[str, bytes], mode: Literal["w", "w:gz"] = "w") -> Path:
    path.parent.mkdir(exist_ok=True)
    with tarfile.open(path, mode) as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def examples(numbers: range, label: Callable[[int], tuple[str, bytes]]) -> dict[str, bytes]:
    members: dict[str, bytes] = {}
    for number in numbers:
        extension, data = label(number)
        members |= {f"{number:06}.png": encoded(seed=number), f"{number:06}.{extension}": data}
    return members


def by_number(number: int) -> tuple[str, bytes]:
    return "cls", str(number % 3).encode()


def shards(root: Path, label: Callable[[int], tuple[str, bytes]] = by_number) -> Path:
    """Ten training examples in three shards, with natural order of their names, and four test examples."""
    for name, numbers in (("train-2", range(4)), ("train-10", range(4, 9)), ("train-11", range(9, 10))):
        shard(root / f"{name}.tar", examples(numbers, label))
    shard(root / "val-0.tar", examples(range(20, 24), label))
    return root


def pixels(*numbers: int) -> np.ndarray:
    return np.stack([np.asarray(picture(seed=number)).transpose(2, 0, 1) for number in numbers])


def test_shards(tmp_path: Path) -> None:
    dataset = load(shards(tmp_path / "data"))
    (train,) = batches(dataset.train, 32)
    np.testing.assert_array_equal(train.images, pixels(*range(10)))
    assert train.labels.tolist() == [number % 3 for number in range(10)]
    np.testing.assert_array_equal(dataset.test.images[[2, 0]], pixels(22, 20))
    assert dataset.classes == ()
    dataset.close()


@pytest.mark.parametrize(
    ("label", "classes", "labels"),
    [
        (lambda n: ("cls", b"cat\n" if n % 2 else b"dog"), ("cat", "dog"), [1, 0, 1]),
        (lambda n: ("json", json.dumps({"label": n % 5, "text": "x"}).encode()), (), [0, 1, 2]),
        (lambda n: ("json", json.dumps({"cls": "ab"[n % 2]}).encode()), ("a", "b"), [0, 1, 0]),
        (lambda n: ("cls", str(5 * (n % 2)).encode()), (), [0, 5, 0]),
    ],
)
def test_labels_of_shards(
    tmp_path: Path, label: Callable[[int], tuple[str, bytes]], classes: tuple[str, ...], labels: list[int]
) -> None:
    dataset = load(shards(tmp_path / "data", label))
    assert dataset.classes == classes
    assert dataset.train.labels[:3].tolist() == labels


def damage_header(path: Path) -> None:
    data = bytearray(path.read_bytes())
    second = 512 + -(-len(encoded(seed=0)) // 512) * 512
    data[second + 148] ^= 0xFF  # of the second member's checksum
    path.write_bytes(data)


BAD_SHARDS: dict[str, tuple[Callable[[Path], object], str]] = {
    "truncated": (truncate, "not a whole tar file: it ends"),
    "damaged": (damage_header, r"its header at byte \d+ is damaged"),
    "text": (lambda path: path.write_text("hello" * 200), "not a whole tar file"),
    "empty": (lambda path: path.write_bytes(b""), "this file is empty"),
    "compressed": (lambda path: shard(path, examples(range(2), by_number), "w:gz"), "not a whole tar file"),
    "no label": (lambda path: shard(path, {"a.png": encoded(), "b.cls": b"1"}), "it has no label"),
    "no image": (lambda path: shard(path, {"a.txt": b"x", "a.cls": b"1"}), "this example has no image"),
    "odd label": (lambda path: shard(path, {"a.png": encoded(), "a.cls": b"\x00"}), "its label is"),
    "negative label": (
        lambda path: shard(path, {"a.png": encoded(), "a.json": b'{"label": -1}'}),
        "label is -1",
    ),
    "vast label": (lambda path: shard(path, {"a.png": encoded(), "a.cls": b"99999999"}), "label is 99999999"),
    "list as json": (
        lambda path: shard(path, {"a.png": encoded(), "a.json": b"[1]"}),
        "its .json has none of",
    ),
    "broken json": (
        lambda path: shard(path, {"a.png": encoded(), "a.json": b"{"}),
        "can't be used: Expecting",
    ),
    "no image bytes": (lambda path: shard(path, {"a.jpg": b"text", "a.cls": b"1"}), "none of BMP, JPEG"),
    "empty image": (lambda path: shard(path, {"a.jpg": b"", "a.cls": b"1"}), "empty"),
}


@pytest.mark.parametrize("name", BAD_SHARDS)
def test_bad_shards(tmp_path: Path, name: str) -> None:
    spoil, said = BAD_SHARDS[name]
    path = shards(tmp_path / "data") / "train-2.tar"
    spoil(path)
    with pytest.raises(DataError, match=said) as error:
        load(tmp_path / "data")
    assert error.value.where.startswith(str(path))
    assert call("data", "check", tmp_path / "data").status == 1


def test_all_bad_shards_are_told_at_once(tmp_path: Path) -> None:
    root = shards(tmp_path / "data")
    truncate(root / "train-10.tar")
    (root / "val-0.tar").write_text("hello" * 200)
    result = call("data", "check", root)
    assert f"fault: {root}/train-10.tar: this is not a whole tar file" in result.out
    assert f"fault: {root}/val-0.tar: this is not a whole tar file" in result.out


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["train.tar"], r"no file named \*test\*.tar"),
        (["test.tar"], r"no file named \*train\*.tar"),
        (["train-test.tar"], "says both train and test"),
    ],
)
def test_names_of_shards(tmp_path: Path, names: list[str], said: str) -> None:
    for name in names:
        shard(tmp_path / "data" / name, examples(range(2), by_number))
    with pytest.raises(DataError, match=said):
        load(tmp_path / "data")


# CIFAR.


def records(count: int, labels: int = 1, seed: int = 0) -> np.ndarray:
    data = np.random.default_rng(seed).integers(0, 256, (count, labels + 3072), dtype=np.uint8)
    data[:, :labels] = (np.arange(count) % 10)[:, None]
    data[:, 0] = (np.arange(count) + labels - 1) % 10
    return data


def cifar(root: Path) -> Path:
    root.mkdir()
    for number in range(1, 3):
        records(7, seed=number).tofile(root / f"data_batch_{number}.bin")
    records(5, seed=9).tofile(root / "test_batch.bin")
    return root


def test_cifar_10(tmp_path: Path) -> None:
    dataset = load(cifar(tmp_path / "data"))
    (train,) = batches(dataset.train, 99)
    expected = np.concatenate([records(7, seed=1), records(7, seed=2)])
    np.testing.assert_array_equal(train.images, expected[:, 1:].reshape(-1, 3, 32, 32))
    assert train.labels.tolist() == expected[:, 0].tolist()
    assert dataset.classes[:2] == ("airplane", "automobile")
    assert len(dataset.test) == 5
    dataset.close()


def test_cifar_100_takes_the_fine_label_and_the_names_beside_it(tmp_path: Path) -> None:
    records(6, labels=2).tofile(tmp_path / "train.bin")
    records(6, labels=2).tofile(tmp_path / "test.bin")
    assert load(tmp_path).train.labels.tolist() == [0, 1, 2, 3, 4, 5]
    assert len(load(tmp_path).classes) == 100
    (tmp_path / "fine_label_names.txt").write_text("".join(f"class {n}\n" for n in range(100)))
    assert load(tmp_path).classes[7] == "class 7"


def test_bad_cifar_files(tmp_path: Path) -> None:
    root = cifar(tmp_path / "data")
    data = records(3)
    data[1, 0] = 10
    data.tofile(root / "data_batch_1.bin")
    with pytest.raises(
        DataError, match=r"data_batch_1.bin: record 1: its label is 10, the classes are 0 to 9"
    ):
        load(root)
    (root / "data_batch_1.bin").write_bytes(bytes(5000))
    with pytest.raises(DataError, match="5000 bytes are no whole number of records of 3073"):
        load(root)
    (root / "test_batch.bin").unlink()
    with pytest.raises(DataError, match=r"this folder lacks test_batch\.bin"):
        load(root)


# Parquet.


def table(path: Path, images: list[object], labels: list[object], names: list[str] | None = None) -> Path:
    arrow = pytest.importorskip("pyarrow")
    import pyarrow.parquet

    found = arrow.table({"image": images, "label": labels})
    if names:
        features = {"image": {"_type": "Image"}, "label": {"names": names, "_type": "ClassLabel"}}
        found = found.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    path.parent.mkdir(exist_ok=True)
    pyarrow.parquet.write_table(found, path, row_group_size=3)
    return path


def tables(root: Path, names: list[str] | None = None) -> Path:
    parts = {"train-0": range(7), "train-1": range(7, 9), "test-0": range(20, 22)}
    for split, numbers in parts.items():
        images: list[object] = [{"bytes": encoded(seed=number), "path": None} for number in numbers]
        table(root / f"{split}.parquet", images, [number % 2 for number in numbers], names)
    return root


def test_parquet(tmp_path: Path, cache: Path) -> None:
    root = tables(tmp_path / "data", ["cat", "dog"])
    dataset = load(root)
    (train,) = batches(dataset.train, 99)
    np.testing.assert_array_equal(train.images, pixels(*range(9)))
    assert train.labels.tolist() == [number % 2 for number in range(9)]
    assert dataset.classes == ("cat", "dog")
    for images in (cache / "parquet").iterdir():
        images.unlink()
    np.testing.assert_array_equal(load(root).test.images, pixels(20, 21))
    assert not list((cache / "parquet").glob(".images*"))


def test_parquet_of_plain_bytes_and_names(tmp_path: Path) -> None:
    for split in ("train", "test"):
        table(tmp_path / "data" / f"{split}.parquet", [encoded(seed=1), encoded(seed=2)], ["dog", "cat"])
    dataset = load(tmp_path / "data")
    assert (dataset.classes, dataset.train.labels.tolist()) == (("cat", "dog"), [1, 0])


def test_parquet_without_pyarrow_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for split in ("train", "test"):
        (tmp_path / f"{split}.parquet").write_bytes(b"PAR1")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(DataError, match=r"needs pyarrow.*pip install 'cnnc\[parquet\]'"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("images", "labels", "said"),
    [
        ([b"text"], [0], "row 0: .*none of BMP, JPEG"),
        ([None], [0], "row 0: this row holds no image"),
        (["a.png"], [0], "row 0: this row holds no image"),
        ([encoded()], [None], "row 0: this row can't be used: its label is None"),
        ([encoded()], [-1], "its label is -1"),
        ([encoded()], [0.5], "its label is 0.5"),
    ],
)
def test_bad_rows(tmp_path: Path, images: list[object], labels: list[object], said: str) -> None:
    root = tables(tmp_path / "data")
    table(root / "test-0.parquet", images, labels)
    with pytest.raises(DataError, match=said) as error:
        load(root)
    assert error.value.where.startswith(str(root / "test-0.parquet"))


def test_tables_that_are_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tables(tmp_path / "data")
    truncate(root / "train-1.parquet")
    with pytest.raises(DataError, match="not a whole Parquet file"):
        load(root)
    pyarrow = pytest.importorskip("pyarrow")
    pyarrow.parquet.write_table(pyarrow.table({"x": [1], "label": [1]}), root / "train-1.parquet")
    with pytest.raises(DataError, match="has no column image or img; it has x, label"):
        load(root)
    monkeypatch.setenv("CNNC_CACHE", "/proc/nothing")
    monkeypatch.setattr(parquet, "survey_files", None)
    with pytest.raises(DataError, match="Set CNNC_CACHE to a folder"):
        parquet._unpack(tables(tmp_path / "more") / "test-0.parquet", Rows())


# All of them alike.


def as_folders(root: Path) -> Path:
    return folders(root, ("a", "b"))


@pytest.mark.parametrize("make", [as_folders, shards, cifar, tables], ids=lambda make: make.__name__)
def test_streamed_and_in_memory_are_the_same(tmp_path: Path, make: Callable[[Path], Path]) -> None:
    root = make(tmp_path / "data")

    def read(dataset: Dataset) -> list[tuple[bytes, list[int]]]:
        order = np.random.default_rng(3).permutation(len(dataset.train))
        found = batches(dataset.train, 4, order=order, start=1)
        return [(batch.images.tobytes(), batch.labels.tolist()) for batch in found]

    wanted = read(load(root, workers=0))
    dataset = load(root, workers=1)
    assert read(dataset) == wanted
    assert dataset.train.digest == load(root).train.digest
    dataset.close()


def test_images_in_memory_are_arrays(tmp_path: Path) -> None:
    dataset = load(as_folders(tmp_path))
    assert isinstance(dataset.train.images, np.ndarray)
    first = Image.fromarray(dataset.train.images[0].transpose(1, 2, 0))
    assert first.tobytes() == picture(seed=1).tobytes()
