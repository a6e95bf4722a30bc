"""What follows a NaN or an infinity, and what the metrics of the epochs decide."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from signals import send
from tiny_bundle import initial_state, write_tiny_bundle

from cnnc.bundle import Bundle, read_state
from cnnc.data import Dataset, Split, batches, epoch_order
from cnnc.data.parts import limited, split_off
from cnnc.errors import DivergedError, Interrupted, RunError, UsageError
from cnnc.runtime import Callback, Settings, StepSession, Summary, resume, train
from cnnc.runtime.checkpoint import BEST, EPOCH, LAST
from cnnc.runtime.criterion import Criterion
from cnnc.runtime.evaluation import feeds
from cnnc.runtime.session.bound import Sums

SETTINGS = Settings(epochs=2, batch_size=50, device="cpu", threads=1, tune=False)
POISONED = 700


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return write_tiny_bundle(tmp_path_factory.mktemp("guard") / "tiny")


@pytest.fixture(scope="module")
def poisoned(digits: Dataset) -> Dataset:
    """Digits as floats, one of which is finite and yet too large for the network."""
    images = digits.train.images.astype(np.float32) / 255
    images[POISONED] = 3e38
    test = Split(digits.test.images.astype(np.float32) / 255, digits.test.labels)
    return Dataset("poisoned", Split(images, digits.train.labels), test)


class Notes(Callback):
    def __init__(self) -> None:
        self.notes: list[str] = []

    def on_note(self, note: str) -> None:
        self.notes.append(note)


def rows(run: Path) -> list[dict[str, str]]:
    with (run / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_skipped_batch_leaves_the_state_as_if_it_had_not_been(
    bundle: Bundle, poisoned: Dataset, tmp_path: Path
) -> None:
    notes = Notes()
    summary = train(bundle, poisoned, replace(SETTINGS, on_nan="skip"), tmp_path / "run", [notes])
    assert (summary.skipped, len(notes.notes), summary.steps) == (2, 2, 58)
    assert all(note.endswith("this batch is skipped.") for note in notes.notes)
    assert [row["skipped"] for row in rows(tmp_path / "run")] == ["1", "2"]

    session = StepSession(bundle, "cpu", 1)
    for epoch in range(2):
        order = epoch_order(len(poisoned.train), 0, epoch)
        for number, feed in enumerate(feeds(batches(poisoned.train, 50, order=order), bundle.manifest)):
            if POISONED not in order[number * 50 : (number + 1) * 50]:
                session.step(*feed)
    for name, array in read_state(tmp_path / "run" / LAST)[0].items():
        np.testing.assert_array_equal(array, session.state()[name], err_msg=name)


def test_a_run_that_skips_goes_on_to_the_same_bits(bundle: Bundle, poisoned: Dataset, tmp_path: Path) -> None:
    class Stop(Callback):
        def on_note(self, note: str) -> None:
            raise KeyboardInterrupt

    settings = replace(SETTINGS, on_nan="skip", save_every=0.0)
    train(bundle, poisoned, settings, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        train(bundle, poisoned, settings, tmp_path / "run", [Stop()])
    resume(tmp_path / "run", poisoned)
    for name in (LAST, BEST, "metrics.csv"):
        assert (tmp_path / "run" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_a_run_does_not_skip_for_ever(
    bundle: Bundle, digits: Dataset, poisoned: Dataset, tmp_path: Path
) -> None:
    with pytest.raises(DivergedError, match="as at the 19 batches before, which were skipped"):
        train(bundle, digits, replace(SETTINGS, on_nan="skip", lr=1.5e37), tmp_path / "run")
    with pytest.raises(DivergedError, match=r"at step 1 \(epoch 1\)"):  # of an epoch that is one batch
        train(bundle, poisoned, replace(SETTINGS, on_nan="skip", batch_size=2000), tmp_path / "one")


def test_a_rollback_returns_to_the_beginning_of_the_epoch_at_half_the_rate(
    bundle: Bundle, digits: Dataset, tmp_path: Path
) -> None:
    notes = Notes()
    settings = replace(SETTINGS, on_nan="rollback", lr=2e34)
    summary = train(bundle, digits, settings, tmp_path / "run", [notes])
    assert 0 < summary.rollbacks <= 5
    assert len(notes.notes) == summary.rollbacks
    assert "back to step 0, where epoch 1 began, at 0.5 times the learning rate" in notes.notes[0]
    scale = 2e34 / bundle.manifest.learning_rate
    assert float(rows(tmp_path / "run")[-1]["lr_scale"]) == scale * 0.5**summary.rollbacks


def test_rollbacks_are_bounded_and_each_starts_from_the_same_state(
    bundle: Bundle, poisoned: Dataset, tmp_path: Path
) -> None:
    with pytest.raises(
        DivergedError, match=r"after 5 rollbacks \(epoch 1\), at the learning rate 0\.0015625"
    ):
        train(bundle, poisoned, replace(SETTINGS, on_nan="rollback"), tmp_path / "run")
    for name in (LAST, EPOCH):
        for key, array in read_state(tmp_path / "run" / name)[0].items():
            np.testing.assert_array_equal(array, initial_state()[key])


def test_a_spoiled_state_is_seen_at_the_step_that_made_it(
    bundle: Bundle, digits: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The loss of the step before is fine: without a look at the state, the next step would be blamed."""
    whole, calls = StepSession.step, []

    def step(session: StepSession, *batch: Any) -> tuple[float, Sums]:
        result = whole(session, *batch)
        calls.append(1)
        if len(calls) == 7:
            session.values["dense.weight.momentum"].numpy()[3, 3] = np.inf
        return result

    monkeypatch.setattr(StepSession, "step", step)
    with pytest.raises(
        DivergedError, match=r"'dense\.weight\.momentum' has .* not finite at step 7 \(epoch 1"
    ):
        train(bundle, digits, SETTINGS, tmp_path / "run")


def test_a_run_stops_when_it_has_waited_long_enough(bundle: Bundle, digits: Dataset, tmp_path: Path) -> None:
    settings = replace(SETTINGS, epochs=30, lr=1e-9, patience=3, min_delta=0.5)
    summary = train(bundle, digits, settings, tmp_path / "run")
    assert (summary.epochs, summary.stopped_early) == (4, True)
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["stopped_early"] is True
    with pytest.raises(RunError, match=r"it stopped early, after 4 epochs\. Give it more with --patience"):
        resume(tmp_path / "run", digits)
    assert resume(tmp_path / "run", digits, patience=5).epochs == 6


def test_the_rate_is_reduced_on_a_plateau(bundle: Bundle, digits: Dataset, tmp_path: Path) -> None:
    settings = replace(SETTINGS, epochs=6, lr=1e-9, plateau=2, plateau_factor=0.1, min_delta=0.5)
    train(bundle, digits, settings, tmp_path / "run")
    scales = [float(row["lr_scale"]) for row in rows(tmp_path / "run")]
    first = 1e-9 / bundle.manifest.learning_rate
    np.testing.assert_allclose(scales, [first, first, first, first / 10, first / 10, first / 100])


@pytest.mark.parametrize(
    ("values", "better", "min_delta", "waited", "reductions"),
    [
        ([1, 2, 3], "higher", 0.0, 0, 0),
        ([3, 2, 1], "higher", 0.0, 2, 1),
        ([3, 2, 1], "lower", 0.0, 0, 0),
        ([1, 1, 1, 1, 1], "lower", 0.0, 4, 2),
        ([1, 1.05, 1.05, 1.2], "higher", 0.1, 0, 1),
        ([1, 1.05, 1.1, 1.1], "higher", 0.2, 3, 1),
    ],
)
def test_a_criterion_waits_as_keras_does(
    values: list[float], better: Literal["higher", "lower"], min_delta: float, waited: int, reductions: int
) -> None:
    table = [{"test_m": float(value)} for value in values]
    by = Criterion("test_m", better, min_delta, patience=waited or 1, plateau=2)
    assert by.met(table) == bool(waited)
    assert not Criterion("test_m", better, min_delta, patience=waited + 1).met(table)
    assert by.reductions(table) == reductions


def test_a_validation_split_decides_and_the_test_data_wait_for_the_end(
    bundle: Bundle, digits: Dataset, tmp_path: Path
) -> None:
    summary = train(bundle, digits, replace(SETTINGS, validation=0.25), tmp_path / "run")
    assert summary.steps == 2 * -(-(1437 - 359) // 50)
    header = rows(tmp_path / "run")[0]
    assert "validation_accuracy" in header
    assert "test_accuracy" not in header
    assert summary.validation["accuracy"] == float(rows(tmp_path / "run")[-1]["validation_accuracy"])
    record = summary.record()
    assert {"validation_accuracy", "test_accuracy", "best_test_accuracy"} <= record.keys()


def test_a_validation_split_is_disjoint_whole_and_drawn_from_the_seed(digits: Dataset) -> None:
    count = len(digits.train)
    marked = Split(digits.train.images, np.arange(count))
    kept, held_out = split_off(marked, 0.1, 0)
    parts = [part.take(slice(None)).labels for part in (kept, held_out)]
    assert (len(kept), len(held_out)) == (1293, 144)
    assert sorted(np.concatenate(parts)) == list(range(count))
    assert list(split_off(marked, 0.1, 0)[1].take(slice(None)).labels) == list(parts[1])
    assert list(split_off(marked, 0.1, 1)[1].take(slice(None)).labels) != list(parts[1])
    streamed = [
        label for part in batches(held_out, 100, order=np.arange(143, -1, -1)) for label in part.labels
    ]
    assert streamed == list(parts[1])[::-1]
    with pytest.raises(UsageError, match="puts 0 of 1437 training examples aside"):
        split_off(marked, 0.0001, 0)


def test_a_limit_is_a_dry_run_on_a_few_examples_of_each_split(
    bundle: Bundle, digits: Dataset, tmp_path: Path
) -> None:
    summary: Summary = train(bundle, digits, replace(SETTINGS, limit=60), tmp_path / "run")
    assert summary.steps == 4
    assert summary.test["accuracy"] * 60 == pytest.approx(round(summary.test["accuracy"] * 60))
    assert len(limited(digits.train, 5000, 0)) == len(digits.train)
    assert len(set(limited(digits.train, 200, 0).take(slice(None)).labels)) == 10


def test_accumulation_goes_on_in_the_middle_of_an_update(digits: Dataset, tmp_path: Path) -> None:
    """The sum of gradients and the place in it are state like any other."""
    from cnnc import Program, Tensor, losses, metrics, nn, optim
    from cnnc.bundle import write_bundle
    from cnnc.compiler import compile_program

    program = Program(
        input=Tensor("image", ("N", 1, 8, 8)),
        model=nn.Sequential(nn.Flatten(), nn.Dense(10)),
        loss=losses.SoftmaxCrossEntropy(),
        optimizer=optim.Adam(learning_rate=0.01),
        metrics=[metrics.Accuracy()],
        accumulate=4,
    )
    compiled = compile_program(program)
    bundle = write_bundle(tmp_path / "bundle", compiled.manifest, compiled.graphs, compiled.state)
    train(bundle, digits, SETTINGS, tmp_path / "whole")

    import signal

    from cnnc.runtime import Moment, loop

    class Stop(Callback):
        def on_step(self, moment: Moment) -> None:
            if moment.step == 10:
                send(signal.SIGINT)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "REPORT_SECONDS", 0)
        with pytest.raises(Interrupted):
            train(bundle, digits, SETTINGS, tmp_path / "run", [Stop()])
    resume(tmp_path / "run", digits)
    for name in (LAST, BEST, "metrics.csv"):
        assert (tmp_path / "run" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
