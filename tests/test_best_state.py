"""The best state and the tables of a run, missing or damaged: what is said, and what goes on all the same."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from command_line import SMALL, call, check_refused, done

from cnnc.data import load as load_data
from cnnc.errors import RunError
from cnnc.report import writing
from cnnc.runtime import Callback, Run, Start, train
from cnnc.runtime.checkpoint import BEST, load


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``run`` learns nothing, so that its first epoch is the best of its two; so does ``held``, which holds
    a validation split out; ``begun`` was stopped before its first epoch."""
    folder = tmp_path_factory.mktemp("best")
    (folder / "graph.py").write_text(SMALL)
    still = ["--data", "digits", "--limit", 60, "--lr", 1e-12, "--epochs", 2, "-q"]
    done("train", folder / "graph.py", "-o", folder / "run", *still)
    done("train", folder / "graph.py", "-o", folder / "held", *still, "--validation", 0.5)

    class Stop(Callback):
        def on_start(self, start: Start) -> None:
            raise InterruptedError

    run = Run.open(folder / "run")
    with pytest.raises(InterruptedError):
        train(run.bundle, load_data("digits"), run.settings, folder / "begun", [Stop()])
    return folder


@pytest.fixture
def copied(place: Path, tmp_path: Path) -> Callable[[str], Path]:
    """A copy of one of the runs."""

    def copy(name: str) -> Path:
        return Path(shutil.copytree(place / name, tmp_path / name))

    return copy


@pytest.mark.parametrize("which", ["last", "raw"])
def test_before_the_first_epoch_has_ended_the_last_state_is_there(which: str, place: Path) -> None:
    done("eval", place / "begun", "--which", which)
    done("data", "check", "digits", "--for", place / "begun")


def test_before_the_first_epoch_has_ended_there_is_no_best_state(place: Path, tmp_path: Path) -> None:
    check_refused(["eval", place / "begun"], ["no epoch of it has ended", "--which last"], tmp_path)
    done("export", place / "begun", "-o", tmp_path / "a.onnx", "--which", "last", "--data", "digits")


def test_a_best_state_that_is_lost(copied: Callable[[str], Path], tmp_path: Path) -> None:
    run = copied("run")
    (run / BEST).unlink()
    resumed = done("train", "--resume", run, "--epochs", 3, "-q")
    assert "The answers are those of the last state." in resumed.err
    assert f"report {run / 'report.html'}" in resumed.out
    missing = f"{run / BEST}: the run's best state is missing."
    check_refused(["eval", run], [missing, "--which last"], tmp_path)
    done("eval", run, "--which", "last")


def test_a_best_state_that_is_cut_off(copied: Callable[[str], Path], tmp_path: Path) -> None:
    run = copied("run")
    os.truncate(run / BEST, 500)
    resumed = done("train", "--resume", run, "--epochs", 3, "-q")
    assert "The answers are those of the last state." in resumed.err
    assert f"{run / BEST}: this is no whole checkpoint" in resumed.err
    assert f"report {run / 'report.html'}" in resumed.out
    assert "By the last state" in (run / "report.html").read_text()
    check_refused(["eval", run], ["this is no whole checkpoint", "--which last"], tmp_path)


def test_a_best_state_lost_where_the_test_split_is_looked_at_in_the_end(
    copied: Callable[[str], Path],
) -> None:
    run = copied("held")
    (run / BEST).unlink()
    resumed = done("train", "--resume", run, "--epochs", 3, "-q")
    assert "best epoch 1: its state is lost" in resumed.out
    summary = json.loads((run / "summary.json").read_text())
    assert "test_loss" in summary
    assert "best_test_loss" not in summary


def test_a_report_that_was_not_made_is_not_told_of(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writing, "page", lambda *arguments: 1 / 0)
    settings = ["--data", "digits", "--limit", 60, "--epochs", 1, "-q"]
    ended = done("train", place / "graph.py", "-o", tmp_path / "run", *settings)
    assert "The report could not be made" in ended.err
    assert "report.html" not in ended.out


def test_a_checkpoint_that_may_not_be_read(
    copied: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As root reads every file, the system's refusal is made up."""
    run = copied("run")

    def refused(path: Path) -> bytes:
        raise PermissionError(13, "Permission denied", str(path))

    manifest = Run.open(run).bundle.manifest
    monkeypatch.setattr(Path, "read_bytes", refused)
    with pytest.raises(RunError, match="this checkpoint can't be read: Permission denied"):
        load(run / BEST, manifest)


def _shortened(text: str) -> str:
    first, *rest = text.splitlines()
    return "\n".join([first, rest[0].rpartition(",")[0], *rest[1:], ""])


@pytest.mark.parametrize("name", ["times.csv", "metrics.csv"])
@pytest.mark.parametrize(
    ("change", "said"),
    [
        (_shortened, "this is damaged: line 2 is shorter or longer than the first"),
        (lambda text: text.replace("epoch", "epocx", 1), "this is damaged: it lacks the column epoch"),
        (lambda text: text.replace("\n1,", "\n1y,"), "this is damaged: '1y' is no number"),
    ],
    ids=["short", "name", "number"],
)
def test_damaged_tables(
    name: str, change: Callable[[str], str], said: str, copied: Callable[[str], Path], tmp_path: Path
) -> None:
    run = copied("run")
    (run / name).write_text(change((run / name).read_text()))
    mend = "remove it" if name == "times.csv" else "Restore the file"
    check_refused(["report", run], [f"{run / name}: {said}", mend], tmp_path)
    assert said in call("runs", run).err
    if name == "times.csv":
        (run / name).unlink()
        done("report", run)


def test_metrics_that_are_missing(copied: Callable[[str], Path], tmp_path: Path) -> None:
    run = copied("run")
    (run / "metrics.csv").unlink()
    said = ["metrics.csv: this can't be read: No such file", "Restore the file from a copy, or train anew."]
    result = call("train", "--resume", run, "--epochs", 3)
    assert result.status == 1
    assert all(words in result.err for words in said)
