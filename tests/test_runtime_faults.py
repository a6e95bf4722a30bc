"""A process that ends at any call to the system, or a disk that refuses it: a whole checkpoint is left."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from faults import FAULTS, in_children
from tiny_bundle import MANIFEST, initial_state

from cnnc.runtime.checkpoint import LAST, PREVIOUS, Checkpoint, Progress, load, load_newest, save
from cnnc.runtime.files import TEMPORARY, write_whole

SAVING = """
import shutil
from pathlib import Path
from faults import FAULTS, forked, injected
from tiny_bundle import initial_state
from cnnc.runtime.checkpoint import LAST, PREVIOUS, Checkpoint, Progress, save

def write(folder, step):
    save(folder / LAST, Checkpoint(initial_state(step), Progress(step=step)), keep=folder / PREVIOUS)

def main(folder):
    folder = Path(folder)
    for step in (1, 2):
        write(folder, step)
    shutil.copytree(folder, folder / "dry")
    with injected(-1, None) as calls:
        write(folder / "dry", 3)
    shutil.rmtree(folder / "dry")
    said = {}
    for name, fault in FAULTS.items():
        for at, call in enumerate(calls):
            place = folder / f"{name} {at} {call}"
            place.mkdir()
            for file in (LAST, PREVIOUS):
                shutil.copy(folder / file, place / file)

            def job():
                with injected(at, fault):
                    write(place, 3)
                return "saved"

            said[place.name] = forked(job)
    return said
"""


def test_a_fault_at_any_call_of_the_system_leaves_the_newest_whole_checkpoint(tmp_path: Path) -> None:
    said = in_children(SAVING, folder=str(tmp_path))
    calls = len(said) // len(FAULTS)
    assert {name.split()[-1] for name in said} == {
        "open",
        "fchmod",
        "write",
        "fsync",
        "close",
        "link",
        "replace",
    }
    assert calls >= 11
    for name, ended in said.items():
        folder = tmp_path / name
        checkpoint, note = load_newest(folder, MANIFEST)
        step = checkpoint.progress.step
        assert note == "", name
        assert step in (2, 3), name
        for key, array in initial_state(step).items():
            assert (checkpoint.state[key] == array).all()
        assert load(folder / PREVIOUS, MANIFEST).progress.step in (1, 2), name
        if name.startswith("killed"):
            assert ended == "killed", name
        elif ended != "saved":  # where links are refused, a rename serves
            assert ended.startswith("RunError: "), name
            assert "can't be written" in ended
            assert not list(folder.glob(f"{TEMPORARY}*")), name
        else:
            assert name.endswith("link")
            assert step == 3
        save(folder / LAST, Checkpoint(initial_state(4), Progress(step=4)), keep=folder / PREVIOUS)
        assert load_newest(folder, MANIFEST)[0].progress.step == 4
        assert len(list(folder.glob(f"{TEMPORARY}*"))) <= 2, name  # what the killed process left, no more


RUNNING = """
import shutil
from pathlib import Path
from faults import FAULTS, forked, injected
from tiny_bundle import write_tiny_bundle
from cnnc.data import load
from cnnc.runtime import Settings, resume, train

SETTINGS = Settings(epochs=2, batch_size=300, device="cpu", threads=1, tune=False)
FILES = ("metrics.csv", "last.safetensors", "best.safetensors")

def main(folder, every):
    folder = Path(folder)
    bundle, digits = write_tiny_bundle(folder / "tiny"), load("digits")

    def dry():
        with injected(-1, None) as calls:
            train(bundle, digits, SETTINGS, folder / "whole")
        return str(len(calls))

    count, wrong = int(forked(dry)), []
    tried = 0
    for name, fault in FAULTS.items():
        for at in range(tried % every, count, every):
            run, tried = folder / f"{name} {at}", tried + 1

            def job():
                with injected(at, fault):
                    train(bundle, digits, SETTINGS, run)
                return "done"

            def again():
                resume(run, digits)
                return "done"

            said = forked(job)
            if said not in ("done", "killed") and not said.startswith("RunError: "):
                wrong.append([run.name, said])
            if not run.exists():
                if name.startswith("killed") or not list(folder.glob(f".{run.name}.*")):
                    continue
                wrong.append([run.name, "something is left of a run that could not be made"])
                continue
            ended = "done" if (run / "summary.json").exists() else forked(again)
            if ended != "done" or [(run / f).read_bytes() for f in FILES] != [
                (folder / "whole" / f).read_bytes() for f in FILES
            ]:
                wrong.append([run.name, said, ended])
            shutil.rmtree(run)
    return {"count": count, "tried": tried, "wrong": wrong}
"""


@pytest.mark.parametrize("every", [29, pytest.param(2, marks=pytest.mark.slow)])
def test_a_run_goes_on_to_the_same_bits_after_a_fault_at_any_call(tmp_path: Path, every: int) -> None:
    """From the making of its folder to its summary; `every` so-many-th call is tried."""
    said = in_children(RUNNING, folder=str(tmp_path), every=every)
    assert said["wrong"] == []
    assert said["count"] > 60
    assert said["tried"] >= said["count"] * len(FAULTS) // every - len(FAULTS)


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o664, 0o444])
def test_a_file_keeps_the_permissions_of_the_one_it_replaces(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "file"
    path.touch()
    path.chmod(mode)
    write_whole(path, b"new", keep=tmp_path / "old")
    assert path.stat().st_mode & 0o777 == mode
    assert path.read_bytes() == b"new"


@pytest.mark.parametrize("mask", [0o022, 0o077])
def test_a_new_file_has_those_the_umask_gives(tmp_path: Path, mask: int) -> None:
    before = os.umask(mask)
    try:
        write_whole(tmp_path / "file", b"new")
    finally:
        os.umask(before)
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o666 & ~mask


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may write anywhere")
def test_a_read_only_folder_is_told_and_the_checkpoint_stays(tmp_path: Path) -> None:
    save(tmp_path / LAST, Checkpoint(initial_state(), Progress(step=1)))
    tmp_path.chmod(0o555)
    try:
        with pytest.raises(Exception, match="can't be written: Permission denied"):
            save(tmp_path / LAST, Checkpoint(initial_state(), Progress(step=2)))
    finally:
        tmp_path.chmod(0o755)
    assert load_newest(tmp_path, MANIFEST)[0].progress.step == 1
