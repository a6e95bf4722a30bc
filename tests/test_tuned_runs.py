"""Runs and their tuned steps: whether a run has one is said and recorded, so that it can be repeated."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import pytest
from built import build
from command_line import call, done
from test_tuner import BATCH, forced

from cnnc.bundle import Bundle
from cnnc.runtime import Run
from cnnc.runtime.settings_file import decode_toml
from cnnc.runtime.tuned import FOLDER, STEP

BEFORE = "the step was tuned for this machine before: 1.00 ms instead of 2.00 (--no-tune goes without)"
OPTIONS = ("--data", "digits", "--epochs", 1, "--limit", 200, "--batch-size", BATCH, "--threads", 1)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return build("digits", tmp_path_factory.mktemp("tuned") / "digits")


@pytest.fixture(scope="module")
def place(bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run before its step was tuned, and one after, with the cache that the second took it from."""
    place = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CNNC_CACHE", str(place / "cache"))
        done("train", bundle.path, *OPTIONS, "--device", "cpu", "-o", place / "plain")
        forced(bundle)
        said = done("train", bundle.path, *OPTIONS, "--device", "cpu", "-o", place / "tuned", "--json")
    assert BEFORE in said.err.splitlines()
    assert json.loads(said.out)["tuned"] is True
    return place


@pytest.fixture
def copy(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same in a place of the test's own, whose cache it finds."""
    copied = shutil.copytree(place, tmp_path / "copy")
    monkeypatch.setenv("CNNC_CACHE", str(copied / "cache"))
    return copied


def bits(run: Path) -> list[bytes]:
    return [(run / name).read_bytes() for name in ("metrics.csv", "last.safetensors", "best.safetensors")]


def test_a_run_says_and_records_whether_its_step_was_tuned(place: Path) -> None:
    for name, tuned in (("plain", False), ("tuned", True)):
        run = place / name
        assert json.loads((run / "summary.json").read_text())["tuned"] is tuned
        assert decode_toml((run / "settings.toml").read_bytes())["tune"] is tuned
        assert (run / FOLDER).exists() is tuned
    assert bits(place / "plain") != bits(place / "tuned")


def test_the_settings_of_a_run_repeat_it_whatever_the_cache_holds(copy: Path) -> None:
    for name in ("plain", "tuned"):
        config = copy / name / "settings.toml"
        said = done("train", "--config", config, "-o", copy / "again" / name)
        assert (BEFORE in said.err) == (name == "tuned")
        assert bits(copy / "again" / name) == bits(copy / name)
    for name, option, same in (("plain", "--tune", "tuned"), ("tuned", "--no-tune", "plain")):
        config, other = copy / name / "settings.toml", copy / "other" / name
        done("train", "--config", config, option, "-o", other)
        assert bits(other) == bits(copy / same)


def test_a_run_goes_on_as_it_began(copy: Path) -> None:
    for name, other, began in (("plain", "--tune", "without"), ("tuned", "--no-tune", "with")):
        refused = call("train", "--resume", copy / name, "--epochs", 2, other)
        assert refused.status == 2
        assert f": {other}: the run began {began} --tune, and goes on so." in refused.err
        same = "--tune" if other == "--no-tune" else "--no-tune"
        said = done("train", "--resume", copy / name, "--epochs", 2, same, "--json")
        assert json.loads(said.out)["tuned"] is (name == "tuned")
        assert "is gone" not in said.err


def test_a_tuned_step_that_is_gone_is_told(copy: Path) -> None:
    shutil.rmtree(copy / "tuned" / FOLDER)
    for epochs in (2, 3):  # each time, since it is no more what it was
        said = done("train", "--resume", copy / "tuned", "--epochs", epochs, "--json")
        assert f"{copy / 'tuned' / FOLDER} is gone, the tuned step this run began with" in said.err
        assert "the portable step, and its bits may differ" in said.err
        assert json.loads(said.out)["tuned"] is False


@pytest.mark.parametrize("name", ["plain", "tuned"])
def test_an_earlier_run_that_records_no_decision_goes_on(copy: Path, name: str) -> None:
    path = copy / name / "settings.toml"
    lines = path.read_bytes().splitlines(keepends=True)
    kept = b"".join(line for line in lines[:-1] if not line.startswith(b"tune ="))
    seal = lines[-1].rpartition(b" ")[0]
    path.write_bytes(kept + seal + f" {hashlib.sha256(kept).hexdigest()}\n".encode())
    assert Run.open(copy / name).settings.tune is (name == "tuned")
    done("train", "--config", path, "--no-tune", "-o", copy / "again")
    assert bits(copy / "again") == bits(copy / "plain")
    said = done("train", "--resume", copy / name, "--epochs", 2, "--json")
    assert json.loads(said.out)["tuned"] is (name == "tuned")
    assert "is gone" not in said.err
    assert decode_toml(path.read_bytes())["tune"] is (name == "tuned")


def test_a_tuned_bundle_trains_on_a_tuned_step(copy: Path, bundle: Bundle) -> None:
    done("tune", bundle.path, "--batch-size", BATCH, "--threads", 1, "-o", copy / "fixed.bundle", "-q")
    said = done("train", copy / "fixed.bundle", *OPTIONS, "-o", copy / "fixed", "--json")
    assert json.loads(said.out)["tuned"] is True
    assert not (copy / "fixed" / FOLDER / STEP).exists()  # it is the bundle's
    assert "is gone" not in done("train", "--resume", copy / "fixed", "--epochs", 2).err
