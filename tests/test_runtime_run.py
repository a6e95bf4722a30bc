"""What lies on disk: damage is found and named, nothing is left half-written, nobody shares a run."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from faults import alter, truncate
from tiny_bundle import MANIFEST, initial_state, write_tiny_bundle

from cnnc.bundle import GRAPHS, Bundle
from cnnc.data import Dataset
from cnnc.errors import RunError
from cnnc.runtime import Callback, Run, Settings, Start, resume, train
from cnnc.runtime.checkpoint import BEST, LAST, PREVIOUS, Checkpoint, Progress, save
from cnnc.runtime.checkpoint import load as load_checkpoint
from cnnc.runtime.files import TEMPORARY, file_names, write_whole
from cnnc.runtime.fingerprint import data_difference, fingerprint
from cnnc.runtime.matrices import Matrix, write_matrices
from cnnc.runtime.run import _sealed as sealed

SETTINGS = Settings(epochs=2, batch_size=100, device="cpu", threads=1)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return write_tiny_bundle(tmp_path_factory.mktemp("run") / "tiny")


@pytest.fixture(scope="module")
def template(bundle: Bundle, digits: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(bundle, digits, SETTINGS, tmp_path_factory.mktemp("run") / "run").run


@pytest.fixture
def run(template: Path, tmp_path: Path) -> Path:
    """A finished run of its own for each test."""
    return shutil.copytree(template, tmp_path / "run")


def empty(path: Path) -> None:
    path.write_bytes(b"")


def replace_by_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


Damage = Callable[[Path], None]
DAMAGES: list[Damage] = [Path.unlink, truncate, alter, empty, replace_by_folder]


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize(
    "name", ["settings.toml", *(f"bundle/{name}" for name in (*GRAPHS, "manifest.json"))]
)
def test_damage_is_found_when_a_run_is_opened(run: Path, name: str, damage: Damage) -> None:
    damage(run / name)
    with pytest.raises(RunError) as caught:
        Run.open(run)
    message = str(caught.value)
    assert Path(name).name in message
    assert str(run) in message
    assert "\n" not in message


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_metrics_are_found_before_a_run_goes_on(run: Path, digits: Dataset, damage: Damage) -> None:
    damage(run / "metrics.csv")
    with pytest.raises(RunError, match=r"metrics\.csv: "):
        resume(run, digits, epochs=3)


@pytest.mark.parametrize("damage", DAMAGES[:4])
def test_a_damaged_checkpoint_is_named_and_the_one_before_goes_on(
    run: Path, template: Path, digits: Dataset, damage: Damage
) -> None:
    """The row of the second epoch is dropped, trained again, and comes out the same."""
    damage(run / LAST)
    (run / "summary.json").unlink()
    seen: list[Start] = []

    class Listener(Callback):
        def on_start(self, start: Start) -> None:
            seen.append(start)

    resume(run, digits, [Listener()])
    assert seen[0].step == 15
    assert f"Going on from {PREVIOUS}, step 15" in seen[0].notes[0]
    assert LAST in seen[0].notes[0]
    manifest = Run.open(run).bundle.manifest
    again, first = load_checkpoint(run / LAST, manifest), load_checkpoint(template / LAST, manifest)
    for name, array in first.state.items():
        np.testing.assert_array_equal(again.state[name], array)
    assert len((run / "metrics.csv").read_text().splitlines()) == 3


def test_two_damaged_checkpoints_are_both_named(run: Path, digits: Dataset) -> None:
    alter(run / LAST)
    (run / PREVIOUS).unlink()
    with pytest.raises(RunError, match=rf"{LAST}: .* Nor can {PREVIOUS} be used"):
        resume(run, digits, epochs=3)


def test_a_checkpoint_of_another_bundle_is_refused(run: Path, digits: Dataset) -> None:
    save(run / LAST, Checkpoint({"dense.weight": np.zeros((2, 2), np.float32)}, Progress()))
    with pytest.raises(RunError, match=r"not of this run's bundle: the state lacks"):
        load_checkpoint(run / LAST, MANIFEST)


@pytest.mark.parametrize("damage", [truncate, alter, empty])
def test_every_damaged_byte_range_of_a_checkpoint_is_found(tmp_path: Path, damage: Damage) -> None:
    path = tmp_path / LAST
    save(path, Checkpoint(initial_state(), Progress(step=3, sums={"loss": (0.1, 2)})))
    assert load_checkpoint(path, MANIFEST).progress == Progress(step=3, sums={"loss": (0.1, 2)})
    damage(path)
    with pytest.raises(RunError, match=LAST):
        load_checkpoint(path, MANIFEST)


def test_any_flipped_byte_of_a_checkpoint_is_found_or_without_effect(tmp_path: Path) -> None:
    path = tmp_path / LAST
    save(path, Checkpoint(initial_state(), Progress(step=3)))
    whole = load_checkpoint(path, MANIFEST)
    data = path.read_bytes()
    for position in range(0, len(data), 37):
        path.write_bytes(data[:position] + bytes([data[position] ^ 4]) + data[position + 1 :])
        try:
            found = load_checkpoint(path, MANIFEST)
        except RunError:
            continue
        assert found.progress == whole.progress
        assert all((found.state[name] == array).all() for name, array in whole.state.items())


def test_a_settings_file_of_another_version_is_refused(run: Path) -> None:
    text = (run / "settings.toml").read_bytes().rpartition(b"# SHA-256")[0]
    (run / "settings.toml").write_bytes(sealed(text.replace(b"version = 2", b"version = 1")))
    with pytest.raises(RunError, match="it is not of cnnc-run version 2"):
        Run.open(run)


@pytest.mark.parametrize("text", ["[]", "null", '"x"', "{}", "[" * 100_000, "epochs = 1", "\x00"])
def test_a_settings_file_of_another_kind_is_refused(run: Path, text: str) -> None:
    (run / "settings.toml").write_text(text)
    with pytest.raises(RunError, match=r"settings\.toml"):
        Run.open(run)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: path.write_text("a file"), "a file of this name exists"),
        (lambda path: (path.mkdir(), (path / "thesis.tex").touch()), "holds something else than a run"),
        (lambda path: path.symlink_to(path.parent / "nowhere"), "a file of this name exists"),
    ],
    ids=["file", "folder", "dangling link"],
)
def test_an_occupied_place_is_left_as_it_is(
    bundle: Bundle, digits: Dataset, tmp_path: Path, make: Callable[[Path], object], message: str
) -> None:
    make(tmp_path / "run")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(RunError, match=message):
        train(bundle, digits, SETTINGS, tmp_path / "run")
    assert sorted(tmp_path.rglob("*")) == before


def test_an_existing_run_is_refused_with_the_way_to_go_on(bundle: Bundle, digits: Dataset, run: Path) -> None:
    with pytest.raises(
        RunError, match=rf"there is a run here already.*--resume {run}.*another folder with -o"
    ):
        train(bundle, digits, SETTINGS, run)


def test_a_run_that_cannot_be_written_leaves_nothing(bundle: Bundle, digits: Dataset, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match=r"can't be written: .* Choose another folder with -o"):
        train(bundle, digits, SETTINGS, tmp_path / "file" / "run")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_full_disk_while_a_run_is_made_leaves_nothing(
    bundle: Bundle, digits: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RunError, match="No space left on device"):
        train(bundle, digits, SETTINGS, tmp_path / "run")
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_in_the_middle_keeps_the_last_checkpoint(
    bundle: Bundle, digits: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    class FillAfterOneEpoch(Callback):
        def on_epoch(self, row: dict[str, float], improved: bool) -> None:
            monkeypatch.setattr(os, "fsync", full)

    run = tmp_path / "run"
    with pytest.raises(RunError, match="No space left on device"):
        train(bundle, digits, SETTINGS, run, [FillAfterOneEpoch()])
    assert load_checkpoint(run / LAST, bundle.manifest).progress.epoch in (0, 1)
    assert not list(run.glob(f"{TEMPORARY}*"))
    monkeypatch.undo()
    assert resume(run, digits).epochs == 2


def test_without_a_name_runs_are_numbered(
    bundle: Bundle, digits: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    settings = Settings(epochs=1, device="cpu", threads=1)
    assert [str(train(bundle, digits, settings).run) for _ in range(2)] == ["runs/tiny-1", "runs/tiny-2"]


def test_an_empty_folder_is_as_good_as_none(bundle: Bundle, digits: Dataset, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    assert train(bundle, digits, SETTINGS, tmp_path / "run").epochs == 2


def test_a_run_in_use_is_refused(run: Path, digits: Dataset) -> None:
    with Run.open(run).locked(), pytest.raises(RunError, match="another process is training this run"):
        resume(run, digits, epochs=3)
    assert resume(run, digits, epochs=3).epochs == 3


@pytest.mark.parametrize("path", ["nowhere", "file", "bundle"])
def test_what_is_no_run_is_said_to_be_none(run: Path, path: str) -> None:
    (run / "file").touch()
    with pytest.raises(RunError, match=r"no such run|is no run"):
        Run.open(run / path)


def test_leftovers_of_a_killed_process_are_removed(run: Path) -> None:
    (run / f"{TEMPORARY}abc").touch()
    with Run.open(run).locked():
        assert not list(run.glob(f"{TEMPORARY}*"))


def test_a_whole_file_keeps_the_old_one_when_writing_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    write_whole(path, b"old")

    def fail(source: object, target: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="Input/output"):
        write_whole(path, b"new")
    assert [(entry.name, entry.read_bytes()) for entry in tmp_path.iterdir()] == [("file", b"old")]


def test_a_fingerprint_sees_images_labels_and_their_order(digits: Dataset) -> None:
    train_split, test_split = digits.train, digits.test
    same = Dataset("digits", train_split, test_split, digits.classes)
    assert fingerprint(same) == fingerprint(digits)
    backwards = np.arange(len(train_split))[::-1]
    for other, said in (
        (Dataset("digits", train_split.take(backwards), test_split), "among the 1437 training examples"),
        (Dataset("digits", train_split, test_split.take(slice(9))), "360 test examples then, 9 now"),
        (Dataset("digits", train_split, test_split, ("a", "b")), "8, 9 (10) then, a, b (2) now"),
    ):
        assert said in data_difference(fingerprint(digits), fingerprint(other))


def test_the_best_state_is_readable_while_the_run_is_locked(run: Path) -> None:
    opened = Run.open(run)
    with opened.locked():
        assert load_checkpoint(run / BEST, opened.bundle.manifest).progress.epoch in (1, 2)


def test_no_two_names_are_one_file() -> None:
    assert file_names(["a/b", "a-b", "A b", "a-b-2", "../"]) == [
        "a-b",
        "a-b-2",
        "A-b-3",
        "a-b-2-2",
        "unnamed",
    ]


def test_each_matrix_has_a_file(tmp_path: Path) -> None:
    matrices = [Matrix("a/b", [[1, 2], [3, 4]], ("cat", "dog")), Matrix("a-b", [[5, 6], [7, 8]], ())]
    write_matrices(tmp_path, matrices)
    found = {path.name: path.read_text() for path in tmp_path.iterdir()}
    assert found == {"a-b.csv": "label,cat,dog\ncat,1,2\ndog,3,4\n", "a-b-2.csv": "label,0,1\n0,5,6\n1,7,8\n"}
