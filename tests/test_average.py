"""``--average``: what it builds, what a run then evaluates and exports, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from command_line import SMALL, call, done
from foreign_models import classifier, save

from cnnc.bundle import Bundle
from cnnc.deploy.trained import Trained

pytestmark = pytest.mark.usefixtures("in_process")

OPTIONS = ("--data", "digits", "--limit", 300, "--device", "cpu", "--threads", 1, "--no-tune")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "small.py"
    path.write_text(SMALL)
    return path


def test_a_run_is_evaluated_by_its_average(source: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    result = done("train", source, "--average", 0.99, "--epochs", 2, "-o", run, "--json", *OPTIONS)
    assert "evaluated with the moving average of its parameters (decay 0.99)" in result.err
    told = json.loads(result.out)
    assert Bundle.open(run / "bundle").manifest.average == 0.99
    assert "average = 0.99" in (run / "settings.toml").read_text()
    losses = {
        which: json.loads(done("eval", run, "--which", which, "--data", "digits", "--json").out)["test_loss"]
        for which in ("last", "raw")
    }
    assert losses["last"] != losses["raw"]
    assert json.loads(done("predict", run, "docs/images/digit-3.png", "--json").out)
    assert done("export", run, "-o", tmp_path / "model.onnx", "--data", "digits").status == 0
    assert told["epochs"] == 2
    done("train", source, "--resume", run, "--epochs", 3, "-q")  # the same graph, with the run's average
    done("train", run / "bundle", "--resume", run, "--epochs", 4, "-q")
    done("train", "--config", run / "settings.toml", "--epochs", 1, "-o", tmp_path / "again", "-q")
    assert Bundle.open(tmp_path / "again" / "bundle").manifest.average == 0.99


def test_it_does_not_change_how_parameters_move(source: Path, tmp_path: Path) -> None:
    for name, options in (("plain", ()), ("averaged", ("--average", 0.9))):
        done("train", source, *options, "--epochs", 2, "-o", tmp_path / name, "-q", *OPTIONS)
    plain, averaged = (Trained.open(tmp_path / name, "raw").state for name in ("plain", "averaged"))
    assert all((plain[name] == averaged[name]).all() for name in plain)


def test_it_is_put_in_place_of_the_graph_files(source: Path, tmp_path: Path) -> None:
    source.write_text(SMALL.replace("metrics=", "average=0.5, metrics="))
    done("build", source, "-o", tmp_path / "own")
    done("build", source, "--average", 0.75, "-o", tmp_path / "other")
    averages = [Bundle.open(tmp_path / name).manifest.average for name in ("own", "other")]
    assert averages == [0.5, 0.75]
    assert "A moving average, decay 0.75" in done("summary", tmp_path / "other").out


def test_a_model_from_elsewhere_is_averaged_too(tmp_path: Path) -> None:
    model = save(classifier(), tmp_path / "m.onnx")
    done("build", model, "--average", 0.9, "-o", tmp_path / "b")
    manifest = Bundle.open(tmp_path / "b").manifest
    moving = {entry.name for entry in manifest.entries("parameter", "buffer") if entry.trainable}
    statistics = {entry.name for entry in manifest.entries("buffer")}
    assert {entry.of for entry in manifest.entries("average")} == moving | statistics
    done("verify", tmp_path / "b")


@pytest.mark.parametrize("decay", [1, 1.5, -0.1, "nan"])
def test_a_decay_out_of_range_is_refused(decay: object, source: Path, tmp_path: Path) -> None:
    for command in ("build", "train"):
        refused = call(command, source, "--average", decay, "-o", tmp_path / "b")
        assert refused.status == 2
        assert "average" in refused.err
        assert "0 or more and below 1" in refused.err
        assert not (tmp_path / "b").exists()


def test_a_bundle_has_its_own(source: Path, tmp_path: Path) -> None:
    done("build", source, "-o", tmp_path / "b")
    refused = call("train", tmp_path / "b", "--average", 0.9, "-o", tmp_path / "run")
    assert refused.status == 2
    assert "a moving average comes too late" in refused.err
    assert "cnnc build" in refused.err
    run = tmp_path / "run"
    done("train", tmp_path / "b", "-o", run, "--epochs", 1, "-q", *OPTIONS)
    refused = call("train", "--resume", run, "--average", 0.9)
    assert refused.status == 2
    assert "--average 0.9: the run began without one" in refused.err
