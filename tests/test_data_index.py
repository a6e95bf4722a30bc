"""The index of a large folder: it saves looking at every file, and is not believed where one has changed."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from wild import encoded, folders, picture

from cnnc.data import index, load, looking, reading
from cnnc.errors import DataError

OLD = 1_600_000_000


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CNNC_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(index, "KEPT_FROM", 5)
    monkeypatch.setattr(index, "GRAIN", 0)
    return tmp_path / "cache"


@pytest.fixture
def data(tmp_path: Path, cache: Path) -> Path:
    root = folders(tmp_path / "data")
    age(root)
    load(root)
    return root


def age(root: Path) -> None:
    """Let all files have the same old time, so that it tells nothing."""
    for path in root.rglob("*.png"):
        os.utime(path, (OLD, OLD))


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The images that are looked at from now on."""
    seen: list[str] = []
    real = reading.look

    def look(place: tuple[str, int, int], where: str, whole: bool = False) -> object:
        seen.append(Path(place[0]).name)
        return real(place, where, whole)

    monkeypatch.setattr(looking, "look", look)
    return seen


def test_a_second_start_looks_at_no_image(data: Path, looks: list[str]) -> None:
    assert len(load(data).train) == 6
    assert looks == []


def rewrite(root: Path) -> int:
    picture(seed=99).save(root / "train" / "cat" / "1.png")
    return 1


def rewrite_at_the_same_size(root: Path) -> int:
    path = root / "train" / "cat" / "1.png"
    data = path.read_bytes()
    path.write_bytes(data[:-30] + bytes(30))
    os.utime(path, (OLD, OLD))
    return 1


def add(root: Path) -> int:
    picture(seed=98).save(root / "test" / "dog" / "9.png")
    return 1


def exchange(root: Path) -> int:
    os.replace(root / "train" / "cat" / "0.png", root / "train" / "dog" / "0.png")
    return 1


def remove(root: Path) -> int:
    (root / "train" / "cat" / "0.png").unlink()
    return 0


def rename_class(root: Path) -> int:
    for split in ("train", "test"):
        (root / split / "cat").rename(root / split / "lion")
    return 6


@pytest.mark.parametrize("change", [rewrite, rewrite_at_the_same_size, add, exchange, remove, rename_class])
def test_only_what_has_changed_is_looked_at(
    data: Path,
    looks: list[str],
    change: Callable[[Path], int],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = load(data).train.digest + load(data).test.digest
    count = change(data)
    dataset = load(data, on_bad_image="skip")
    assert len(looks) == count
    assert dataset.train.digest + dataset.test.digest != before
    monkeypatch.setenv("CNNC_CACHE", str(tmp_path / "another"))
    fresh = load(data, on_bad_image="skip")
    for part in ("train", "test"):
        ours, theirs = getattr(dataset, part), getattr(fresh, part)
        assert ours.digest == theirs.digest
        np.testing.assert_array_equal(ours.labels, theirs.labels)
    assert dataset.classes == fresh.classes


def test_files_that_just_changed_are_looked_at_again(
    tmp_path: Path, cache: Path, looks: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(index, "GRAIN", 2_000_000_000)
    root = folders(tmp_path / "data")
    load(root)
    looks.clear()
    load(root)
    assert len(looks) == 12, "their times can't tell a change within the same moment"


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(b"junk" * 100),
        lambda path: path.write_bytes(path.read_bytes()[:-400]),
        lambda path: path.write_bytes(path.read_bytes().replace(b"cat", b"dog")),
        lambda path: np.savez(path, version=np.array(index.VERSION + 1)),
        lambda path: (path.unlink(), path.mkdir()),
    ],
)
def test_a_damaged_index_is_written_anew(
    data: Path, cache: Path, looks: list[str], damage: Callable[[Path], object]
) -> None:
    (path,) = (cache / "index").iterdir()
    damage(path)
    assert load(data).classes == ("cat", "dog")
    assert len(looks) == 12


def test_bad_images_stay_known(data: Path, looks: list[str]) -> None:
    (data / "train" / "cat" / "7.png").write_bytes(encoded()[:20])
    for _ in range(2):
        with pytest.raises(DataError, match=r"7\.png: this is not a whole image file"):
            load(data)
    assert looks == ["7.png"]


def test_without_a_place_for_it_there_is_no_index(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CNNC_CACHE", "/proc/nothing")
    assert len(load(folders(tmp_path / "data")).train) == 6


def test_small_data_sets_leave_nothing_in_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CNNC_CACHE", str(tmp_path / "cache"))
    load(folders(tmp_path / "data"))
    assert not (tmp_path / "cache").exists()


@pytest.mark.slow
def test_100_000_images_start_in_under_5_seconds_the_second_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CNNC_CACHE", str(tmp_path / "cache"))
    Image.new("L", (8, 8)).save(tmp_path / "a.png")
    pixel = (tmp_path / "a.png").read_bytes()
    for split, count in (("train", 900), ("test", 100)):
        for label in range(100):
            folder = tmp_path / "data" / split / str(label)
            folder.mkdir(parents=True)
            for number in range(count):
                (folder / f"{number}.png").write_bytes(pixel)
    began = time.perf_counter()
    first = load(tmp_path / "data", size=(8, 8), workers=1)
    middle = time.perf_counter()
    second = load(tmp_path / "data", size=(8, 8), workers=1)
    end = time.perf_counter()
    print(f"100,000 files: {middle - began:.1f} s the first time, {end - middle:.1f} s the second")
    assert len(second.train) == 90_000
    assert first.train.digest == second.train.digest
    assert end - middle < 5
