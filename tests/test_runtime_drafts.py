"""What a process that was killed while it made a run left beside it: removed, unless somebody works on it."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest
from faults import in_children
from tiny_bundle import write_tiny_bundle

from cnnc.data import load
from cnnc.runtime import Settings, train
from cnnc.runtime.drafts import draft, remove_abandoned

MAKING = """
import sys
from pathlib import Path
from cnnc.runtime.drafts import draft
with draft(Path(sys.argv[1])) as temporary:
    (temporary / "bundle").mkdir()
    (temporary / "bundle" / "train.onnx").write_text("half")
    print("ready", flush=True)
    sys.stdin.read()
    temporary.rename(sys.argv[1])
"""


def maker(folder: Path) -> subprocess.Popen[str]:
    """A process that is in the midst of making `folder`, until its standard input ends."""
    command = [sys.executable, "-c", MAKING, str(folder)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout
    assert process.stdout.readline() == "ready\n"
    return process


def names(folder: Path) -> set[str]:
    return {entry.name for entry in folder.iterdir()}


def test_the_next_run_removes_what_a_killed_process_left(tmp_path: Path) -> None:
    killed = maker(tmp_path / "run")
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    (left,) = names(tmp_path)
    assert left.startswith(".run.")
    others = {".run.backup", f".other.{'0' * 32}", f".run.{'0' * 31}"}
    for name in others:
        (tmp_path / name).mkdir()
    file, link = tmp_path / f".run.{'a' * 32}", tmp_path / f".run.{'b' * 32}"
    file.touch()
    link.symlink_to(tmp_path / ".run.backup")
    bundle = write_tiny_bundle(tmp_path / "tiny")
    train(bundle, load("digits"), Settings(epochs=1, batch_size=400, device="cpu"), tmp_path / "run")
    assert names(tmp_path) == others | {file.name, link.name, "tiny", "run"}


def test_what_a_process_works_on_stays(tmp_path: Path) -> None:
    working = maker(tmp_path / "run")
    before = names(tmp_path)
    remove_abandoned(tmp_path / "run")
    assert names(tmp_path) == before
    working.communicate()
    assert working.returncode == 0
    assert names(tmp_path) == {"run"}
    assert (tmp_path / "run" / "bundle" / "train.onnx").read_text() == "half"


def test_a_draft_that_is_not_renamed_is_removed(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), draft(tmp_path / "run") as temporary:  # noqa: PT012
        (temporary / "file").touch()
        raise RuntimeError
    assert not names(tmp_path)


MANY = """
import os
from pathlib import Path
from cnnc.runtime.drafts import draft, remove_abandoned

def make(run, rounds):
    for number in range(rounds):
        remove_abandoned(run)
        with draft(run) as temporary:
            (temporary / "bundle").mkdir()
            for name in ("a", "b"):
                (temporary / "bundle" / name).write_text(name)
            remove_abandoned(run)
            temporary.rename(run.with_name(f"run-{os.getpid()}-{number}"))

def main(folder, processes, rounds):
    children = []
    for _ in range(processes):
        child = os.fork()
        if child == 0:
            try:
                make(Path(folder, "run"), rounds)
            except BaseException:
                os._exit(1)
            os._exit(0)
        children.append(child)
    return [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
"""


def test_processes_at_once_leave_one_another_alone(tmp_path: Path) -> None:
    said = in_children(MANY, folder=str(tmp_path), processes=6, rounds=60)
    assert said == [0] * 6
    made = [path for path in tmp_path.iterdir() if path.name.startswith("run-")]
    assert len(made) == len(names(tmp_path)) == 360
    assert all(names(path / "bundle") == {"a", "b"} for path in made)
