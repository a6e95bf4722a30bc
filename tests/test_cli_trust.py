"""Runs that are started, stopped and given back on the command line, as processes where it matters."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from command_line import PROGRAM, SMALL, call, done

from cnnc.bundle import read_state
from cnnc.errors import UsageError
from cnnc.runtime import Run, Settings
from cnnc.runtime.checkpoint import load_newest
from cnnc.runtime.settings_file import decode_toml, encode_toml, read_config

QUICK = ("--epochs", 2, "--batch-size", 100, "--device", "cpu", "--threads", 1, "--no-tune")


@pytest.fixture(scope="module")
def template(tiny: Path) -> Path:
    path = tiny.parent / "run"
    done("train", tiny, "--data", "digits", "-o", path, "--validation", "0.1", "-q", *QUICK)
    return path


@pytest.fixture
def run(template: Path, tmp_path: Path) -> Path:
    return shutil.copytree(template, tmp_path / "run")


@pytest.fixture
def graph_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "small.py"
    path.write_text(SMALL)
    return path


def bits(run: Path) -> list[bytes]:
    return [(run / name).read_bytes() for name in ("metrics.csv", "last.safetensors", "best.safetensors")]


def test_the_settings_of_a_run_give_the_same_run(run: Path, tmp_path: Path) -> None:
    done("train", "--config", run / "settings.toml", "-o", tmp_path / "again", "-q")
    assert bits(tmp_path / "again") == bits(run)
    done("train", "--config", run / "settings.toml", "--epochs", 1, "-o", tmp_path / "short", "-q")
    assert Run.open(tmp_path / "short").settings.epochs == 1


def test_the_settings_of_a_graph_file_keep_its_options(graph_file: Path, tmp_path: Path) -> None:
    done("train", "small.py", "--data", "digits", "--set", "width=3", "-o", "run", "-q", *QUICK)
    record = decode_toml(Path("run/settings.toml").read_bytes())
    assert (record["source"], record["options"]) == (str(graph_file), {"width": "3"})
    done("train", "--config", "run/settings.toml", "-o", "again", "-q")
    assert bits(tmp_path / "again") == bits(tmp_path / "run")
    done("train", "--config", "run/settings.toml", "--set", "width=2", "-o", "narrow", "-q")
    assert Run.open("narrow").bundle.manifest.state[0].shape[0] == 2


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("epoch = 3", "there is no setting 'epoch'. Did you mean 'epochs'?"),
        ("epochs = 3.5", "the setting 'epochs' is 3.5: it takes a whole number"),
        ("epochs = true", "it takes a whole number"),
        ("data = 3", "it takes a text in quotes"),
        ('on_nan = "ignore"', "it takes 'stop' or 'skip' or 'rollback'"),
        ("options = 3", "it takes a table of texts"),
        ("epochs = ", "this is no TOML"),
        ("\x00", "this is no TOML"),
    ],
)
def test_a_wrong_setting_in_a_file_is_named(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "settings.toml"
    path.write_text(text)
    with pytest.raises(UsageError) as caught:
        read_config(path)
    assert said in str(caught.value)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    "text", ["a", 'q"uote\\', "tab\tline\nreturn\r", "\x7f\x00\x1f", "über 数", "\udcff/x"]
)
def test_texts_of_all_kinds_come_back_from_toml(text: str) -> None:
    record = {
        "data": text,
        "epochs": 3,
        "lr": 1e-05,
        "options": {"wi dth": text},
        "run": {"of": {"a": ["b"]}},
    }
    written = encode_toml(record).encode("utf-8", "surrogateescape")
    assert decode_toml(written) == record


def test_settings_that_were_edited_in_a_run_are_found(run: Path) -> None:
    path = run / "settings.toml"
    path.write_text(path.read_text().replace("epochs = 2", "epochs = 9"))
    result = call("train", "--resume", run)
    assert result.status == 1
    assert "settings.toml: the settings can't be read: it is not as it was written" in result.err


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["--batch-size", 7], "--batch-size 7: the run has 100, and keeps it"),
        (["--lr", 1], "--lr 1.0: the run has 0.05, and keeps it"),
        (["--validation", 0.5], "--validation 0.5: the run has 0.1"),
        (["--reduce-on-plateau", 3], "--reduce-on-plateau 3: the run began without one"),
    ],
)
def test_a_run_keeps_its_settings_and_says_what_differs(run: Path, given: list[object], said: str) -> None:
    result = call("train", "--resume", run, *given)
    assert result.status == 2
    assert said in result.err
    assert "--init-from" in result.err


def test_the_same_command_line_goes_on_and_another_graph_is_refused(graph_file: Path) -> None:
    command = ("train", "small.py", "--data", "digits", "-q")
    done(*command, "-o", "run", *QUICK)
    done(*command, "--resume", "run", *QUICK[2:], "--epochs", 3)
    for change, said in (
        (("width: int = 4", "width: int = 5"), "state 'conv1.weight' [4, 1, 3, 3] then, [5, 1, 3, 3] now"),
        (("optim.Adam", "optim.SGD"), "optimizer name Adam then, SGD now; "),
        (("learning_rate=0.01", "learning_rate=0.02"), "0.02 now"),
        (('activation="relu"', 'activation="tanh"'), "another train.onnx"),
    ):
        graph_file.write_text(SMALL.replace(*change))
        result = call(*command, "--resume", "run")
        assert result.status == 2, change
        assert said in result.err, result.err
        assert "cnnc train small.py --init-from run" in result.err


def test_other_data_are_refused_with_the_difference(run: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    rng = np.random.default_rng(0)
    for name, count in (("train", 50), ("test", 20)):
        np.savez(
            data / f"{name}.npz",
            x=rng.integers(0, 255, (count, 1, 8, 8), np.uint8),
            y=np.arange(count) % 10,
        )
    result = call("train", "--resume", run, "--data", data, "--epochs", 3)
    assert result.status == 1
    assert "1437 training examples then, 50 now; 360 test examples then, 20 now" in result.err


@pytest.mark.parametrize("kind", ["run", "state", "model", "bundle"])
def test_a_run_begins_with_the_parameters_of_another(
    run: Path, tiny: Path, tmp_path: Path, kind: str
) -> None:
    place = {
        "run": run,
        "state": run / "best.safetensors",
        "model": tiny / "infer.onnx",
        "bundle": tiny,
    }[kind]
    zero = ("--data", "digits", "--epochs", 1, "--lr", 0, "--no-tune", "-o", tmp_path / "new")
    result = done("train", tiny, "--init-from", place, *zero)
    assert "3 of 3 parameters and running statistics are those of" in result.err
    expected = read_state(
        (tiny if kind in ("model", "bundle") else run)
        / ("state.safetensors" if kind in ("model", "bundle") else "best.safetensors")
    )[0]
    found = read_state(tmp_path / "new" / "last.safetensors")[0]
    np.testing.assert_array_equal(found["dense.weight"], expected["dense.weight"])
    assert found["step"] == 45
    assert Run.open(tmp_path / "new").settings.init_from == str(place)


def test_what_does_not_fit_of_another_run_is_said(graph_file: Path, run: Path) -> None:
    for width in (4, 5):
        options = ("--data", "digits", "--set", f"width={width}", *QUICK)
        source = ("--init-from", "4") if width == 5 else ()
        result = done("train", "small.py", *options, *source, "-o", str(width))
    assert "New: conv1.weight, float32 [4, 1, 3, 3] there and float32 [5, 1, 3, 3] here" in result.err
    result = call("train", "small.py", "--data", "digits", "--init-from", run, "-o", "new", *QUICK)
    assert result.status == 1
    assert "it has no parameter of this network: conv1.weight, which it lacks" in result.err
    assert not Path("new").exists()


def test_other_threads_are_told(run: Path) -> None:
    result = done("train", "--resume", run, "--epochs", 3, "--threads", 2)
    assert "threads 1 before, 2 now: the run goes on, but its bits may differ" in result.err


def test_a_full_disk_is_foreseen(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = SimpleNamespace(total=10**9, used=10**9, free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    result = call("train", tiny, "--data", "digits", "-o", tmp_path / "run", *QUICK)
    assert result.status == 1
    assert "the run needs 1 MB of the disk, of which 0 MB are free. Make room" in result.err
    assert list(tmp_path.iterdir()) == []


def start(*arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*PROGRAM, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        errors="surrogateescape",
    )


LONG = (
    "--data",
    "digits",
    "--batch-size",
    2,
    "--epochs",
    500,
    "--threads",
    1,
    "--device",
    "cpu",
    "--no-tune",
)


def test_sigterm_saves_and_a_lock_outlives_no_process(tiny: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    with start("train", tiny, "-o", run, *LONG) as process:
        assert process.stderr is not None
        next(line for line in process.stderr if line.startswith("epoch 1/"))
        refused = call("train", "--resume", run)
        assert "another process is training this run" in refused.err
        process.send_signal(signal.SIGTERM)
        said = process.stderr.read()
    assert process.returncode == 130
    assert "the state is saved" in said
    with start("train", "--resume", run) as process:
        assert process.stderr is not None
        next(line for line in process.stderr if line.startswith("epoch "))
        process.kill()
    result = call("train", "--resume", run, "--epochs", 1)
    assert "this run has begun" in result.err, "the lock of a killed process is free"


@pytest.mark.parametrize("ignored", [False, True])
def test_a_terminal_that_closes_saves_the_run_unless_nohup_says_otherwise(
    ignored: bool,
) -> None:
    code = f"""
import signal
from cnnc.runtime.interrupts import stop_requests
if {ignored}:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
with stop_requests() as stop:
    signal.raise_signal(signal.SIGHUP)
    print(stop.asked)
"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ended.stdout == f"{not ignored}\n"


def test_a_second_ctrl_c_ends_at_once_and_loses_nothing_saved(tiny: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    with start("train", tiny, "-o", run, *LONG, "--save-every", 0) as process:
        assert process.stderr is not None
        next(line for line in process.stderr if line.startswith("epoch 1/"))
        process.send_signal(signal.SIGINT)
        process.send_signal(signal.SIGINT)
        process.stderr.read()
    assert process.returncode in (-signal.SIGINT, 130)
    checkpoint, note = load_newest(run, Run.open(run).bundle.manifest)
    assert checkpoint.progress.step > 0
    assert note == ""


@pytest.mark.parametrize(
    "script",
    [
        '"$@" 2>&1 | head -n 1',
        '"$@" >&- 2>&- <&-',
        *(
            pytest.param(script, marks=pytest.mark.slow)
            for script in ('"$@" | head -c 1', '"$@" >&-', '"$@" 2>&-')
        ),
    ],
)
def test_closed_streams_do_no_harm(tiny: Path, tmp_path: Path, script: str) -> None:
    run = tmp_path / "run"
    command = [*PROGRAM, "train", tiny, "--data", "digits", "-o", run, *QUICK]
    subprocess.run(
        ["bash", "-c", f"set +e; {script}; true", "bash", *map(str, command)],
        capture_output=True,
        timeout=60,
        check=True,
    )
    assert json.loads((run / "summary.json").read_text())["epochs"] == 2


def test_paths_that_are_no_utf_8_and_locales_that_know_only_ascii(tiny: Path, tmp_path: Path) -> None:
    run = os.fsencode(tmp_path) + b"/r\xfcn"
    bundle = os.fsencode(tmp_path) + b"/b\xe9"
    shutil.copytree(tiny, os.fsdecode(bundle))
    environment = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    arguments = [b"train", bundle, b"--data", b"digits", b"-o", run, *(str(part).encode() for part in QUICK)]
    for command in (arguments, [b"train", b"--resume", run, b"--epochs", b"3"], [b"eval", run]):
        ended = subprocess.run([*PROGRAM, *command], env=environment, capture_output=True, timeout=60)
        assert ended.returncode == 0, ended.stderr
    assert Settings(**{**vars(Run.open(os.fsdecode(run)).settings)}).source == os.fsdecode(bundle)
    assert sys.getfilesystemencoding() == "utf-8"
