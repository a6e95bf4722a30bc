"""Worker processes: the same batches whatever their number, and nothing of them left however a run ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Generator, Iterator
from pathlib import Path

import numpy as np
import pytest
from command_line import PROGRAM, SMALL, call, done
from wild import BAD, encoded, folders, picture

from cnnc.bundle import Preprocessing
from cnnc.data import Dataset, Prefetcher, batches, epoch_order, load
from cnnc.data.pool import Pool
from cnnc.data.streamed import ImageSplit
from cnnc.errors import DataError


def many(root: Path, count: int = 60) -> Path:
    for split in ("train", "test"):
        for label in map(str, range(10)):
            (root / split / label).mkdir(parents=True)
        for index in range(count):
            path = root / split / str(index % 10) / f"{index}.png"
            picture("L", (8, 8), seed=index).save(path)
    return root


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return many(tmp_path_factory.mktemp("workers") / "data")


def children(pid: int) -> list[int]:
    """The worker processes of a process."""
    found = []
    for folder in Path("/proc").iterdir():
        try:
            if (
                folder.name.isdecimal()
                and int((folder / "stat").read_text().rpartition(")")[2].split()[1]) == pid
            ):
                found.append(int(folder.name))
        except OSError:
            continue
    return found


def _parent(process: Path) -> int:
    return int((process / "stat").read_text().rpartition(")")[2].split()[1])


def gone(pids: list[int], seconds: float = 20.0) -> bool:
    """Whether the processes end soon; a dead one that nobody has waited for counts."""

    def lives(pid: int) -> bool:
        try:
            return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
        except OSError:
            return False

    end = time.monotonic() + seconds
    while any(map(lives, pids)) and time.monotonic() < end:
        time.sleep(0.02)
    return not any(map(lives, pids))


def test_order_and_position_do_not_depend_on_the_number_of_workers(data: Path) -> None:
    def read(workers: int, start: int) -> list[bytes]:
        dataset = load(data, workers=workers)
        order = epoch_order(len(dataset.train), 7, 3)
        found = [
            b.images.tobytes() + b.labels.tobytes()
            for b in batches(dataset.train, 8, order=order, start=start)
        ]
        dataset.close()
        return found

    whole = read(0, 0)
    assert len(whole) == 8
    assert read(2, 0) == whole
    assert read(1, 5) == whole[5:], "an epoch goes on in its middle"


def test_workers_are_kept_between_epochs_and_end_with_the_data_set(data: Path) -> None:
    dataset = load(data, workers=2)
    for _ in range(2):
        assert sum(map(len, batches(dataset.train, 16))) == 60
    assert sum(map(len, batches(dataset.test, 16))) == 60
    assert isinstance(dataset.train, ImageSplit)
    pids = dataset.train.images.decoding.pids
    assert len(pids) == 2
    assert set(children(os.getpid())) >= set(pids)
    dataset.close()
    assert gone(pids, 0.0), "close waits for them"


@pytest.mark.parametrize("how", ["closed", "prefetcher", "forgotten"])
def test_leaving_in_the_middle_ends_the_workers(data: Path, how: str) -> None:
    before = set(children(os.getpid()))
    dataset = load(data, workers=1)
    found: Iterator[object] = batches(dataset.train, 4)
    if how == "prefetcher":
        with Prefetcher(found) as ready:
            next(ready)
            pids = [pid for pid in children(os.getpid()) if pid not in before]
    else:
        next(found)
        pids = [pid for pid in children(os.getpid()) if pid not in before]
        if how == "closed":
            assert isinstance(found, Generator)
            found.close()
    assert len(pids) == 1
    del dataset, found
    assert gone(pids)


def test_batches_that_are_kept_stay_as_they_are(data: Path) -> None:
    dataset = load(data, workers=1)
    kept = list(batches(dataset.train, 4))
    np.testing.assert_array_equal(np.concatenate([b.images for b in kept]), load(data).train.images)
    dataset.close()


def test_two_readers_at_once(data: Path) -> None:
    dataset = load(data, workers=1)
    pairs = list(zip(batches(dataset.train, 16), batches(dataset.test, 16), strict=True))
    assert len(pairs) == 4
    dataset.close()


def test_memory_is_bounded(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pool = Pool(1, 1000)
    assert pool._memory.size() == 4096 + 2 * 1000, "two batches a worker"
    pool.close()
    monkeypatch.setattr("cnnc.data.streamed.POOL_MEMORY_LIMIT", 3000)
    dataset = load(data, workers=8)
    assert len(list(batches(dataset.train, 16))) == 4
    assert isinstance(dataset.train, ImageSplit)
    assert len(dataset.train.images.decoding.pids) == 1
    dataset.close()


def test_a_worker_that_is_killed_gives_a_clear_error(data: Path) -> None:
    dataset = load(data, workers=2)
    found = batches(dataset.train, 4)
    next(found)
    (pid, *_) = children(os.getpid())
    os.kill(pid, signal.SIGKILL)
    with pytest.raises(DataError, match=r"that reads images was killed by signal 9.*--workers"):
        list(found)
    assert gone([pid])


def test_a_worker_that_can_not_start_says_why(
    data: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "PIL").mkdir()
    (tmp_path / "numpy.py").write_text("raise ImportError('no such luck')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    dataset = load(data, workers=1)
    with pytest.raises(DataError, match=r"ended with status 1 \(ImportError: no such luck\)"):
        list(batches(dataset.train, 4))


def test_bad_images_in_workers_stop_or_are_skipped_and_counted(tmp_path: Path) -> None:
    root = folders(tmp_path / "data")
    name = "truncated.jpg"
    BAD[name][0](root / "train" / "dog" / name)
    wanted = Preprocessing(resize="stretch")
    dataset = load(root, size=(9, 12), workers=1, preprocessing=wanted)
    with pytest.raises(DataError, match="truncated") as error:
        list(batches(dataset.train, 2))
    assert error.value.where == str(root / "train" / "dog" / name)
    skipping = load(root, size=(9, 12), workers=1, preprocessing=wanted, on_bad_image="skip")
    assert [len(batch) for batch in batches(skipping.train, 2)] == [2, 2, 2, 0]
    assert [problem.where for problem in skipping.problems] == [error.value.where]
    assert [len(batch) for batch in batches(skipping.train, 1)] == [1, 1, 1, 1, 1, 1, 0]
    skipping.close()


# Real runs.


@pytest.fixture
def place(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "small.py").write_text(SMALL)
    return tmp_path


def metrics(run: Path) -> str:
    return (run / "metrics.csv").read_text()


TRAIN = ("train", "small.py", "--device", "cpu", "--threads", 1, "--batch-size", 16, "-q")


@pytest.mark.slow
def test_runs_with_and_without_workers_are_the_same(data: Path, place: Path) -> None:
    for workers in (0, 2):
        done(*TRAIN, "--data", data, "-o", f"run{workers}", "--epochs", 2, "--workers", workers)
    assert metrics(place / "run0") == metrics(place / "run2")
    done("train", "--resume", "run2", "--epochs", 3, "-q", "--workers", 0)
    done("train", "--resume", "run0", "--epochs", 3, "-q", "--workers", 1)
    assert metrics(place / "run0") == metrics(place / "run2")


def test_training_skips_and_counts_bad_images(tmp_path: Path, place: Path) -> None:
    root = many(place / "data", 20)
    (root / "train" / "3" / "bad.jpg").write_bytes(encoded("JPEG", size=(8, 8))[:-40])
    assert call(*TRAIN, "--data", root, "-o", "no").status == 1
    result = done(*TRAIN, "--data", root, "-o", "run", "--epochs", 1, "--on-bad-image", "skip", "--json")
    assert json.loads(result.out)["skipped_images"] == 1
    assert "1 bad image skipped in the training and test data:\n" in result.err
    assert f"{root}/train/3/bad.jpg: this is not a whole image file" in result.err


def test_a_bad_image_found_in_the_middle_saves_the_run_first(place: Path) -> None:
    root = many(place / "data", 20)
    (root / "train" / "3" / "bad.jpg").write_bytes(encoded("JPEG", size=(8, 8))[:-40])
    result = call(*TRAIN, "--data", root, "-o", "run", "--epochs", 2, "--workers", 1)
    assert result.status == 1
    assert "bad.jpg: this is not a whole image file" in result.err
    assert "go on with `cnnc train --resume run`; --on-bad-image skip" in result.err
    resumed = done("train", "--resume", "run", "--on-bad-image", "skip", "-q", "--json")
    whole = done(*TRAIN, "--data", root, "-o", "whole", "--epochs", 2, "--on-bad-image", "skip", "--json")
    assert json.loads(resumed.out)["test_loss"] == json.loads(whole.out)["test_loss"]
    assert metrics(place / "run") == metrics(place / "whole")


@pytest.mark.parametrize(
    "number",
    [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow), signal.SIGKILL],
    ids=lambda number: number.name,
)
def test_nothing_is_left_of_a_run_that_is_stopped(data: Path, place: Path, number: signal.Signals) -> None:
    shared = set(os.listdir("/dev/shm")) if os.path.isdir("/dev/shm") else set()
    arguments = [*map(str, TRAIN), "--data", str(data), "-o", "run", "--epochs", "100000", "--workers", "1"]
    process = subprocess.Popen([*PROGRAM, *arguments], stderr=subprocess.PIPE, start_new_session=True)
    pids: list[int] = []
    end = time.monotonic() + 60
    while not (place / "run" / "metrics.csv").exists() or not pids:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end
        pids = children(process.pid)
        time.sleep(0.02)
    # As a terminal does: to the whole group.
    os.killpg(process.pid, number) if number == signal.SIGINT else process.send_signal(number)
    _, said = process.communicate(timeout=60)
    assert process.returncode == (-9 if number == signal.SIGKILL else 130)
    assert b"Traceback" not in said
    assert gone(pids)
    if shared:
        assert not {name for name in set(os.listdir("/dev/shm")) - shared if "cnnc" in name}


def test_a_program_that_has_no_main_guard_may_use_workers(data: Path, tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(
        "from cnnc.data import batches, load\n"
        f"dataset = load({str(data)!r}, workers=1)\n"
        "print(sum(len(batch) for batch in batches(dataset.train, 16)))\n"
    )
    ended = subprocess.run([sys.executable, str(program)], capture_output=True, text=True, check=False)
    assert (ended.stdout, ended.stderr) == ("60\n", "")


def test_the_worker_sees_no_module_of_the_current_folder(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "json.py").write_text("raise SystemExit('wrong json')")
    monkeypatch.chdir(tmp_path)
    dataset: Dataset = load(data, workers=1)
    assert len(list(batches(dataset.train, 16))) == 4
    dataset.close()
