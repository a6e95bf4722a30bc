"""The search for a learning rate and the check on one batch: what they find, and that they leave nothing."""

from __future__ import annotations

import json
import math
import xml.etree.ElementTree as ET
from pathlib import Path

import built
import numpy as np
import pytest
from command_line import SMALL, call, contents, done

from cnnc.data import load
from cnnc.errors import UsageError
from cnnc.runtime import Settings
from cnnc.runtime.probing import overfit_one_batch, search_rate, steepest

CPU = Settings(device="cpu", threads=1)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "small.py").write_text(SMALL)
    return tmp_path


def test_the_suggestion_is_where_the_loss_falls_fastest() -> None:
    rates = np.logspace(-6, 1, 141)
    losses = 2.3 - 2 / (1 + (1e-3 / rates)) + (rates / 2) ** 2  # a sigmoid over log(rate), steepest at 1e-3
    assert steepest(list(rates), list(losses)) == pytest.approx(1e-3, rel=0.1)
    assert steepest(list(rates), [2.3] * 141) is None
    assert steepest(list(rates), list(np.linspace(2.3, 9, 141))) is None


def test_the_search_undoes_the_schedule_and_leaves_the_bundle(tmp_path: Path) -> None:
    """The network of the warm-up has a rate of its own at each step; the search makes the rates it says."""
    bundle = built.build("average", tmp_path / "b")
    before = contents(tmp_path)
    data = built.colour_data("class")
    found = search_rate(bundle, data, CPU, low=1e-5, high=1e-2, steps=12)
    assert found.rates == pytest.approx(np.logspace(-5, -2, 12))
    assert not found.diverged
    assert all(map(math.isfinite, found.losses))
    assert contents(tmp_path) == before
    again = search_rate(bundle, data, CPU, low=1e-5, high=1e-2, steps=12)
    assert again == found


def test_the_search_ends_where_the_loss_grows(tmp_path: Path) -> None:
    bundle = built.build("digits", tmp_path / "b")
    found = search_rate(bundle, load("digits"), CPU, high=1e4, steps=60)
    assert found.diverged
    assert found.rates[-1] < 1e4
    assert found.suggestion is not None
    assert 1e-4 < found.suggestion < 1


@pytest.mark.parametrize("limits", [(1e-3, 1e-4), (0.0, 1.0), (1e-3, math.inf), (-1.0, 1.0)])
def test_limits_must_grow(limits: tuple[float, float], tmp_path: Path) -> None:
    bundle = built.build("digits", tmp_path / "b")
    with pytest.raises(UsageError, match="the first must be above 0 and lower"):
        search_rate(bundle, load("digits"), CPU, low=limits[0], high=limits[1])


def test_lr_find(place: Path) -> None:
    done("build", "small.py", "-o", "small.bundle")
    before = contents(place)
    said = done("lr-find", "small.bundle", "--data", "digits", "-o", "found.svg", "--steps", 40).out
    assert said.startswith("suggested learning rate: ")
    assert said.endswith("picture found.svg\n")
    picture = ET.parse(place / "found.svg").getroot()
    assert picture.tag.endswith("svg")
    after = contents(place)
    assert after.pop("found.svg")
    assert after == before
    record = json.loads(done("lr-find", "small.py", "--data", "digits", "--steps", 40, "--json").out)
    assert record["picture"] == "small.lr-find.svg"
    assert len(record["rates"]) == len(record["losses"])
    result = call("lr-find", "small.bundle", "--data", "digits", "--steps", 40, "-o", "nowhere/a.svg")
    assert (result.status, result.out) == (1, "")
    assert "nowhere/a.svg" in result.err
    assert "-o" in result.err


def test_one_batch_is_learned_by_heart(place: Path) -> None:
    before = contents(place)
    said = done("train", "small.py", "--data", "digits", "--overfit-one-batch").out
    assert said.startswith("the network can learn: it knows a batch of 32 by heart after ")
    record = json.loads(done("train", "small.py", "--data", "digits", "--overfit-one-batch", "--json").out)
    assert record["learned"]
    assert record["accuracy"] == 1.0
    assert contents(place) == before


def test_a_network_that_can_not_learn_is_told(place: Path) -> None:
    before = contents(place)
    result = call("train", "small.py", "--data", "digits", "--overfit-one-batch", "--lr", "1e-8")
    assert (result.status, result.out) == (1, "")
    for words in ("can't learn even one batch of 32", "fall by 90%", "--lr", "lr-find"):
        assert words in result.err
    assert contents(place) == before
    result = call("train", "--resume", "run", "--overfit-one-batch")
    assert result.status == 2
    assert "--overfit-one-batch can't be given with --resume" in result.err


def test_targets_of_other_kinds(tmp_path: Path) -> None:
    for name, kind in (("value", "value"), ("binary", "binary")):
        bundle = built.build(name, tmp_path / name)
        result = overfit_one_batch(bundle, built.colour_data(kind, 8), CPU, steps=400)
        assert result.examples == 8
        assert result.losses[-1] < result.losses[0]
