"""Commands around training: doctor, new, runs, completion, and event files for TensorBoard."""

from __future__ import annotations

import json
import re
import struct
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import pytest
from command_line import SMALL, call, contents, done, spawn
from tiny_bundle import write_tiny_bundle

from cnnc import doctor
from cnnc.report.listing import differing, list_runs
from cnnc.runtime import Run

QUICK = ("--data", "digits", "--batch-size", 200, "--device", "cpu", "--threads", 1, "-q")


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


# cnnc new


def test_a_new_graph_file_trains_as_it_stands(place: Path) -> None:
    assert done("new", "my-net").out.startswith("my-net.py: change it")
    text = (place / "my-net.py").read_text()
    assert "cnnc train my-net.py --data digits" in text
    said = done(
        "train", "my-net.py", "-o", "run", "--epochs", 4, "--lr", 0.02, "--set", "width=8", *QUICK
    ).out
    accuracy = re.search(r"best epoch \d: test accuracy (0\.\d+)", said)
    assert accuracy
    assert float(accuracy[1]) > 0.5
    before = contents(place)
    result = call("new", "my-net.py")
    assert (result.status, result.out) == (1, "")
    assert "my-net.py: this file exists" in result.err
    assert contents(place) == before


@pytest.mark.parametrize(("name", "status"), [("3 nets", 2), ("no/where/net", 1), ("", 2)])
def test_new_names_that_will_not_do(name: str, status: int, place: Path) -> None:
    result = call("new", name)
    assert result.status == status
    assert result.err.startswith("error: ")
    assert not list(place.iterdir())


# cnnc doctor


def test_doctor_finds_no_problem_here() -> None:
    result = done("doctor")
    assert result.out.startswith("cnnc ")
    assert result.out.endswith("no problems\n")
    for words in ("Python 3.", "onnxruntime ", "CPUExecutionProvider", "a graph runs on the CPU", "GB free"):
        assert words in result.out
    record = json.loads(done("doctor", "--json").out)
    assert {finding["level"] for finding in record["findings"]} <= {"ok", "note"}


def test_doctor_tells_of_two_onnxruntimes_and_old_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = metadata.version

    def version(name: str) -> str:
        return {"onnxruntime-gpu": "1.31.0", "numpy": "1.20.0"}.get(name) or whole(name)

    monkeypatch.setattr(metadata, "version", version)
    result = call("doctor")
    assert result.status == 1
    problems = [line for line in result.out.splitlines() if line.startswith("PROBLEM")]
    assert len(problems) == 2
    assert "numpy 1.20.0 is older than 1.26" in problems[0]
    assert re.search(r"both onnxruntime 1\S+ and onnxruntime-gpu 1.31.0 are installed", problems[1])
    assert "pip uninstall onnxruntime onnxruntime-gpu" in problems[1]
    assert result.out.endswith("2 problems\n")


def test_doctor_tells_of_a_full_disk_and_survives_a_broken_check(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "LOW_DISK", 1 << 62)

    def broken() -> None:
        raise OSError("libonnxruntime.so: no such file")

    monkeypatch.setattr(doctor, "_compute", broken)
    problems = [finding for finding in doctor.examine() if finding.level == "problem"]
    assert any(finding.what.startswith("only ") and finding.hint for finding in problems)
    assert any("libonnxruntime.so" in finding.what for finding in problems)


# cnnc runs


def test_runs_are_listed_and_compared(place: Path) -> None:
    bundle = write_tiny_bundle(place / "tiny").path
    for name, rate in (("b", 0.05), ("a", 1e-6)):
        done("train", bundle, "-o", f"runs/{name}", "--epochs", 1, "--lr", rate, *QUICK)
    (place / "runs/other").mkdir()
    said = done("runs").out
    lines = [line.split() for line in said.splitlines() if line.strip().startswith("runs/")]
    assert [line[0] for line in lines] == ["runs/b", "runs/a"]
    assert all(line[1] == "finished" for line in lines)
    assert [line[-1] for line in lines] == ["0.05", "1e-06"]
    assert "best accuracy" in said
    record = json.loads(done("runs", "--best-first", "--json").out)
    best = [run["best"] for run in record["runs"]]
    assert best == sorted(best, reverse=True)
    assert record["differing"] == ["lr"]

    (place / "runs/a/metrics.csv").write_bytes(b"\xff\xfe")
    (place / "runs/b/settings.toml").write_text("broken")
    found = list_runs(place / "runs")
    assert all(run.problem for run in found)
    assert differing(found) == []
    result = call("runs")
    assert result.status == 0
    assert "settings.toml" in result.err


def test_a_run_under_way_is_told_as_such(place: Path) -> None:
    bundle = write_tiny_bundle(place / "tiny").path
    done("train", bundle, "-o", "run", "--epochs", 1, *QUICK)
    with Run.open("run").locked():
        (found,) = list_runs("run")
        assert found.state == "running"
    assert list_runs("run")[0].state == "finished"


def test_no_runs(place: Path) -> None:
    result = call("runs", "runs")
    assert (result.status, result.out) == (1, "")
    assert "runs: there is no such folder" in result.err
    assert done("runs").out == "no runs here or in runs/\n"
    (place / "runs").mkdir()
    assert done("runs").out == "no runs here or in runs/\n"
    assert done("runs", "runs").out == "runs: no runs\n"


def test_runs_with_a_name_lie_here(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = write_tiny_bundle(place / "tiny").path
    for where in (("-o", "run"), (), ("-o", "elsewhere/run")):
        done("train", bundle, *where, "--epochs", 1, *QUICK)

    def listed(*folder: str) -> list[str]:
        return [run["path"] for run in json.loads(done("runs", *folder, "--json").out)["runs"]]

    assert listed() == ["run", "runs/tiny-1"]
    assert (listed("runs"), listed("elsewhere"), listed("run")) == (
        ["runs/tiny-1"],
        ["elsewhere/run"],
        ["run"],
    )
    monkeypatch.chdir("run")
    assert listed() == ["."]


# TensorBoard


def events(path: Path) -> Iterator[tuple[str, int, float]]:
    """The scalars of an event file: tag, step and value."""
    from tensorboardX.proto.event_pb2 import Event

    data = path.read_bytes()
    while data:
        (length,) = struct.unpack("<Q", data[:8])
        event = Event.FromString(data[12 : 12 + length])
        yield from ((value.tag, event.step, value.simple_value) for value in event.summary.value)
        data = data[16 + length :]


def test_tensorboard_files_hold_the_rows(place: Path) -> None:
    bundle = write_tiny_bundle(place / "tiny").path
    done("train", bundle, "-o", "run", "--epochs", 2, "--tensorboard", *QUICK)
    (file,) = (place / "run/tensorboard").iterdir()
    found = {(tag, step): value for tag, step, value in events(file)}
    (run,) = list_runs("run")
    assert run.last is not None
    for name in ("train_loss", "test_accuracy"):
        step = int(run.last["step"])
        assert found[name.replace("_", "/", 1), step] == pytest.approx(run.last[name])
    assert {tag for tag, _ in found} >= {"running/loss", "run/images_per_second", "run/lr_scale"}
    done("train", "--resume", "run", "--epochs", 3, "--tensorboard", "-q")
    assert len(list((place / "run/tensorboard").iterdir())) == 2


def test_without_tensorboardx_nothing_begins(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = write_tiny_bundle(place / "tiny").path
    before = contents(place)
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    result = call("train", bundle, "-o", "run", "--tensorboard", *QUICK)
    assert (result.status, result.out) == (1, "")
    assert "pip install 'cnnc[tensorboard]'" in result.err
    assert contents(place) == before


# Names that are nearly right, and completion.


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("trian",), "Did you mean 'train'"),
        (("train", "--epoch", 3), "--epochs"),
        (("train", "digits", "--data", "digit"), "Did you mean 'digits'"),
        (("train", "digits", "--device", "cdua"), "Did you mean 'cuda'"),
        (("build", "digit"), "Did you mean 'digits'"),
        (("build", "resnet_cifar", "--set", "dpth=20"), "Did you mean 'depth'"),
        (("build", "small.py", "--set", "wdth=20"), "Did you mean 'width'"),
        (("report", "nothing"), "there is no such run"),
        (("lr-find", "digit"), "Did you mean 'digits'"),
    ],
    ids=lambda value: " ".join(map(str, value)) if isinstance(value, tuple) else "",
)
def test_near_misses(arguments: tuple[object, ...], said: str, place: Path) -> None:
    (place / "small.py").write_text(SMALL)
    result = call(*arguments)
    assert result.status in (1, 2)
    assert said in result.err


def test_completion_knows_commands_and_options(place: Path) -> None:
    def completed(words: str) -> list[str]:
        environment = {"_CNNC_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": "1"}
        return spawn(**environment).out.split()

    assert completed("cnnc tr") == ["train"]
    assert set(completed("cnnc r")) == {"report", "runs"}
