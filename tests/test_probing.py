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

from cnnc.bundle import Array, write_bundle
from cnnc.compiler import compile_program
from cnnc.data import load
from cnnc.errors import UsageError
from cnnc.graphs import digits
from cnnc.runtime import Settings
from cnnc.runtime.probing import overfit_one_batch, search_rate
from cnnc.runtime.steepest import SMOOTHING, steepest

CPU = Settings(device="cpu", threads=1)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "small.py").write_text(SMALL)
    return tmp_path


def test_the_suggestion_is_where_the_loss_falls_fastest() -> None:
    losses = 2.3 - fall(1e-3) + (RATES / 2) ** 2
    assert steepest(RATES, losses) == pytest.approx(1e-3, rel=0.1)
    assert steepest(RATES, [2.3] * 141) is None
    assert steepest(RATES, np.linspace(2.3, 9, 141)) is None
    assert steepest(RATES[:3], losses[-3:]) is None


def test_a_fall_after_the_loss_has_grown_is_not_the_first() -> None:
    losses = 2.3 - fall(1e-4, 0.5) + fall(1e-2, 1.0) - fall(1, 2.0)
    assert steepest(RATES, losses) == pytest.approx(1e-4, rel=0.3)


def test_noise_at_the_start_is_no_fall() -> None:
    """Losses as of the digits, whose batches differ much: about the steepest point, later by the average."""
    random = np.random.default_rng(0)
    mean = 3.5 - fall(4e-4, 3)
    found = [steepest(RATES, smoothed(mean + random.normal(0, 0.15 * mean))) for _ in range(200)]
    assert all(rate is not None and 1e-4 < rate < 4e-3 for rate in found), sorted(map(str, found))
    assert 4e-4 < np.median(np.asarray(found)) < 1.2e-3  # the average is up to 9 steps late


def test_a_loss_of_noise_alone_suggests_nothing() -> None:
    random = np.random.default_rng(0)
    found = [steepest(RATES, smoothed(2.5 + random.normal(0, 0.8, 141))) for _ in range(200)]
    assert sum(rate is not None for rate in found) <= 5


RATES = np.logspace(-6, 1, 141)


def fall(rate: float, height: float = 2.0) -> Array:
    """A sigmoid over log(rate), steepest at `rate`."""
    return height / (1 + rate / RATES)


def smoothed(losses: Array) -> Array:
    """Their moving average without bias."""
    average, found = 0.0, []
    for number, loss in enumerate(losses):
        average = SMOOTHING * average + (1 - SMOOTHING) * loss
        found.append(average / (1 - SMOOTHING ** (number + 1)))
    return np.asarray(found)


@pytest.mark.parametrize("seed", [0, 4])
def test_the_suggestion_for_the_digits(seed: int, tmp_path: Path) -> None:
    """Small batches, so that the first losses are as noisy as they come."""
    compiled = compile_program(digits.program)
    bundle = write_bundle(tmp_path / "digits", compiled.manifest, compiled.graphs, compiled.state)
    settings = Settings(device="cpu", threads=1, batch_size=8, seed=seed)
    found = search_rate(bundle, load("digits"), settings)
    assert found.suggestion is not None
    assert 3e-4 < found.suggestion < 4e-3


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
