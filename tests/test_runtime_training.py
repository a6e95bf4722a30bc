"""Training runs from start to end: what they learn and write, and that any stop can be gone on from."""

from __future__ import annotations

import csv
import json
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from signals import send
from tiny_bundle import initial_state, write_tiny_bundle

from cnnc.bundle import Bundle
from cnnc.data import Dataset, Split, batches, epoch_order, load, preprocess
from cnnc.errors import DataError, DivergedError, Interrupted, RunError, UsageError
from cnnc.runtime import (
    Callback,
    EvalSession,
    Moment,
    Run,
    Settings,
    Start,
    StepSession,
    Summary,
    evaluate,
    loop,
    resume,
    train,
)
from cnnc.runtime.checkpoint import BEST, LAST
from cnnc.runtime.checkpoint import load as load_checkpoint
from cnnc.runtime.session.bound import Sums

SETTINGS = Settings(epochs=3, batch_size=50, device="cpu", threads=1)
STEPS = 29  # an epoch: 1437 images in batches of 50
CLOCK = {"seconds", "images_per_second"}


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return write_tiny_bundle(tmp_path_factory.mktemp("training") / "tiny")


@pytest.fixture(scope="module")
def finished(bundle: Bundle, digits: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Summary:
    return train(bundle, digits, SETTINGS, tmp_path_factory.mktemp("training") / "run")


def state(run: Path, name: str = LAST) -> dict[str, np.ndarray]:
    return dict(load_checkpoint(run / name, Run.open(run).bundle.manifest).state)


def rows(run: Path) -> list[dict[str, str]]:
    """The rows of metrics.csv without what a clock decides."""
    with (run / "metrics.csv").open(newline="") as file:
        return [{k: v for k, v in row.items() if k not in CLOCK} for row in csv.DictReader(file)]


def assert_same_run(run: Path, other: Path) -> None:
    assert rows(run) == rows(other)
    for name in (LAST, BEST):
        for key, array in state(run, name).items():
            np.testing.assert_array_equal(array, state(other, name)[key], err_msg=f"{name}: {key}")


class StopAt(Callback):
    """Sends this process a signal at one of the calls a run makes."""

    def __init__(self, when: Callable[[object], bool], number: int = signal.SIGINT) -> None:
        self.when, self.number = when, number

    def on_step(self, moment: Moment) -> None:
        self.tell(moment)

    def on_epoch(self, row: dict[str, float], improved: bool) -> None:
        self.tell(row)

    def tell(self, event: object) -> None:
        if self.when(event):
            send(self.number)


@pytest.fixture
def every_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """Report after every step, so that a test can stop at any of them."""
    monkeypatch.setattr(loop, "REPORT_SECONDS", 0)


def test_it_learns_the_digits_and_says_so(finished: Summary) -> None:
    record = finished.record()
    assert record["test_accuracy"] > 0.9
    assert record["steps"] == 3 * STEPS
    assert json.loads(json.dumps(record)) == json.loads((finished.run / "summary.json").read_text())
    assert {
        "test_loss",
        "epochs",
        "step_ms_median",
        "images_per_second",
        "run",
        "peak_memory_mb",
    } <= record.keys()
    assert sorted(path.name for path in finished.run.iterdir()) == [
        "best.safetensors", "bundle", "environment.json", "last.previous.safetensors", "last.safetensors",
        "lock", "metrics.csv", "settings.toml", "summary.json", "times.csv",
    ]  # fmt: skip


def test_metrics_csv_has_a_row_an_epoch(finished: Summary) -> None:
    table = rows(finished.run)
    assert [(row["epoch"], row["step"]) for row in table] == [("1", "29"), ("2", "58"), ("3", "87")]
    assert float(table[-1]["test_accuracy"]) == finished.test["accuracy"]
    assert float(table[-1]["train_loss"]) < float(table[0]["train_loss"])
    best = max(table, key=lambda row: float(row["test_accuracy"]))
    assert (finished.best_epoch, finished.best["loss"]) == (int(best["epoch"]), float(best["test_loss"]))


def test_training_metrics_are_the_sums_of_every_step(
    bundle: Bundle, digits: Dataset, finished: Summary
) -> None:
    session, split, manifest = StepSession(bundle, "cpu", 1), digits.train, bundle.manifest
    right, loss = 0.0, 0.0
    for part in batches(split, 50, order=epoch_order(len(split), 0, 0)):
        mean, sums = session.step(
            preprocess(part.images, manifest.preprocessing, manifest.input), part.labels
        )
        right, loss = right + sums["accuracy"][0], loss + mean * len(part)
    first = rows(finished.run)[0]
    assert float(first["train_accuracy"]) == right / len(split)
    assert float(first["train_loss"]) == pytest.approx(loss / len(split), rel=1e-6)


@pytest.mark.parametrize("batch_size", [7, 360, 1000])
def test_test_metrics_do_not_depend_on_the_batch(
    bundle: Bundle, digits: Dataset, finished: Summary, batch_size: int
) -> None:
    found = evaluate(bundle, state(finished.run), digits.test, device="cpu", batch_size=batch_size)
    assert found["accuracy"] == finished.test["accuracy"]
    assert found["loss"] == pytest.approx(finished.test["loss"], rel=1e-6)


def test_the_best_state_is_the_one_with_the_best_test_metric(
    bundle: Bundle, digits: Dataset, finished: Summary
) -> None:
    found = evaluate(bundle, state(finished.run, BEST), digits.test, device="cpu")
    assert found == pytest.approx(finished.best, rel=1e-6)


def test_the_same_seed_gives_the_same_bits_and_another_seed_does_not(
    bundle: Bundle, digits: Dataset, finished: Summary, tmp_path: Path
) -> None:
    same = train(bundle, digits, SETTINGS, tmp_path / "same")
    assert_same_run(same.run, finished.run)
    settings = Settings(epochs=1, batch_size=50, seed=1, device="cpu", threads=1)
    other = train(bundle, digits, settings, tmp_path / "other")
    assert rows(other.run)[0] != rows(finished.run)[0]


def test_a_seed_draws_the_initial_state_anew(bundle: Bundle, digits: Dataset, tmp_path: Path) -> None:
    settings = Settings(epochs=1, lr=0, seed=5, device="cpu", threads=1)
    train(bundle, digits, settings, tmp_path / "run")
    np.testing.assert_array_equal(state(tmp_path / "run")["dense.weight"], initial_state(5)["dense.weight"])


@pytest.mark.usefixtures("every_step")
@pytest.mark.parametrize(
    ("when", "number"),
    [
        (lambda event: isinstance(event, Moment) and event.step == 1, signal.SIGINT),
        (lambda event: isinstance(event, Moment) and event.step == STEPS + 7, signal.SIGTERM),
        (lambda event: isinstance(event, Moment) and event.batch == STEPS, signal.SIGINT),
        (lambda event: isinstance(event, dict) and event["epoch"] == 2, signal.SIGINT),
    ],
    ids=["first step", "middle", "before evaluation", "between epochs"],
)
def test_a_stopped_run_goes_on_bit_for_bit(
    bundle: Bundle,
    digits: Dataset,
    finished: Summary,
    tmp_path: Path,
    when: Callable[[object], bool],
    number: signal.Signals,
) -> None:
    run = tmp_path / "run"
    handlers = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with pytest.raises(Interrupted, match=rf"the state is saved\. .*--resume {run}") as caught:
        train(bundle, digits, SETTINGS, run, [StopAt(when, number)])
    assert caught.value.exit_status == 130
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == handlers
    assert not (run / "summary.json").exists()
    summary = resume(run, digits)
    assert (summary.steps, summary.test) == (finished.steps, finished.test)
    assert_same_run(run, finished.run)


def test_a_run_stopped_in_its_evaluation_goes_on_with_it(
    bundle: Bundle, digits: Dataset, finished: Summary, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = EvalSession.sums

    def stop_and_sum(*arguments: Any) -> Sums:
        send(signal.SIGINT)
        return whole(*arguments)

    monkeypatch.setattr(EvalSession, "sums", stop_and_sum)
    with pytest.raises(Interrupted, match=f"stopped at step {STEPS}, in epoch 1"):
        train(bundle, digits, SETTINGS, tmp_path / "run")
    monkeypatch.undo()
    assert rows(tmp_path / "run") == []
    resume(tmp_path / "run", digits)
    assert_same_run(tmp_path / "run", finished.run)


def test_a_killed_run_goes_on_bit_for_bit(bundle: Bundle, finished: Summary, tmp_path: Path) -> None:
    """SIGKILL leaves no time to save: the run goes on from the checkpoint made in the middle of the epoch."""
    program = f"""
import os, signal
from cnnc.bundle import Bundle
from cnnc.data import load
from cnnc.runtime import Settings, Callback, loop, train
loop.REPORT_SECONDS = 0
class Kill(Callback):
    def on_step(self, moment):
        if moment.step == {STEPS + 11}:
            os.kill(os.getpid(), signal.SIGKILL)
settings = Settings(epochs=3, batch_size=50, device="cpu", threads=1, save_every=0)
train(Bundle.open({str(bundle.path)!r}), load("digits"), settings, {str(tmp_path / "run")!r}, [Kill()])
"""
    child = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert child.returncode == -signal.SIGKILL, child.stderr
    seen: list[Start] = []

    class Listener(Callback):
        def on_start(self, start: Start) -> None:
            seen.append(start)

    resume(tmp_path / "run", load("digits"), [Listener()])
    assert 0 < seen[0].step < STEPS + 11
    assert_same_run(tmp_path / "run", finished.run)


def test_a_second_ctrl_c_ends_the_process_at_once() -> None:
    program = """
import os, signal
from cnnc.runtime.interrupts import stop_requests
with stop_requests() as stop:
    os.kill(os.getpid(), signal.SIGINT)
    assert stop.asked
    os.kill(os.getpid(), signal.SIGINT)
    print("still here")
"""
    child = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (child.returncode, child.stdout) == (-signal.SIGINT, "")


def test_a_finished_run_goes_on_only_for_more_epochs(
    bundle: Bundle, digits: Dataset, finished: Summary, tmp_path: Path
) -> None:
    settings = Settings(epochs=2, batch_size=50, device="cpu", threads=1)
    train(bundle, digits, settings, tmp_path / "run")
    with pytest.raises(RunError, match=r"has finished its 2 epochs\. Give it more with --epochs"):
        resume(tmp_path / "run", digits)
    with pytest.raises(RunError, match="has begun 2 epochs: it can't end after 1"):
        resume(tmp_path / "run", digits, epochs=1)
    with pytest.raises(UsageError, match="epochs is 0"):
        resume(tmp_path / "run", digits, epochs=0)
    resume(tmp_path / "run", digits, epochs=3)
    assert_same_run(tmp_path / "run", finished.run)


def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_the_last_good_state(
    bundle: Bundle, digits: Dataset, tmp_path: Path
) -> None:
    settings = Settings(lr=1.5e37, batch_size=50, device="cpu", threads=1)
    with pytest.raises(DivergedError) as caught:
        train(bundle, digits, settings, tmp_path / "run")
    assert "the loss became nan at step 2 (epoch 1), at the learning rate 1.5e+37" in str(caught.value)
    assert "of step 0, is kept in last.safetensors" in str(caught.value)
    kept = state(tmp_path / "run")
    for name, array in initial_state().items():
        np.testing.assert_array_equal(kept[name], array)
    assert rows(tmp_path / "run") == []


def test_a_test_metric_that_is_not_finite_stops_the_run(
    bundle: Bundle, digits: Dataset, tmp_path: Path
) -> None:
    """One step an epoch: its loss is still finite when the state it leaves is useless."""
    settings = Settings(lr=1.5e37, batch_size=2000, device="cpu", threads=1)
    with pytest.raises(DivergedError, match="the test loss became nan after step 1"):
        train(bundle, digits, settings, tmp_path / "run")
    assert state(tmp_path / "run")["step"] == 0
    assert not (tmp_path / "run" / BEST).exists()


@pytest.mark.parametrize(("cheaply", "when"), [(True, "at step 1"), (False, "after step 29")])
def test_a_state_that_is_not_finite_is_never_saved(
    bundle: Bundle, digits: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cheaply: bool, when: str
) -> None:
    monkeypatch.setattr(StepSession, "not_finite", lambda session: "dense.weight.momentum")
    monkeypatch.setattr(StepSession, "checks_cheaply", cheaply)
    with pytest.raises(
        DivergedError, match=rf"'dense\.weight\.momentum' has .* not finite {when} \(epoch 1\)"
    ):
        train(bundle, digits, SETTINGS, tmp_path / "run")
    assert state(tmp_path / "run")["step"] == 0
    assert rows(tmp_path / "run") == []


def test_a_callback_hears_of_everything_and_not_too_often(
    bundle: Bundle, digits: Dataset, tmp_path: Path
) -> None:
    calls: list[tuple[object, ...]] = []

    class Listener(Callback):
        def on_start(self, start: Start) -> None:
            calls.append(("start", start.epochs, start.steps_per_epoch, start.step, start.threads))

        def on_step(self, moment: Moment) -> None:
            calls.append(("step", moment.epoch, moment.batch))
            assert moment.values.keys() == {"accuracy", "loss"}

        def on_epoch(self, row: dict[str, float], improved: bool) -> None:
            calls.append(("epoch", row["epoch"], improved))

        def on_end(self, summary: Summary) -> None:
            calls.append(("end", summary.steps))

    train(bundle, digits, Settings(epochs=1, device="cpu", threads=1), tmp_path / "run", [Listener()])
    assert calls[0] == ("start", 1, 45, 0, 1)
    assert ("step", 1, 45) in calls
    assert len(calls) < 20
    assert calls[-2:] == [("epoch", 1, True), ("end", 45)]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"epochs": 0}, "epochs is 0"),
        ({"batch_size": -1}, "batch_size is -1"),
        ({"threads": 0}, "threads is 0"),
        ({"lr": float("nan")}, "the learning rate is nan"),
        ({"lr": -1.0}, "the learning rate is -1"),
        ({"lr": 1e300}, "1e\\+300 is too large"),
        ({"seed": -1}, "the seed is -1"),
        ({"seed": 2**31}, "the seed is 2147483648"),
        ({"best": "acuracy"}, "no metric 'acuracy'. Did you mean 'accuracy'"),
        ({"device": "gpu"}, "no device 'gpu'"),
    ],
)
def test_settings_out_of_range_are_wrong_usage_and_write_nothing(
    bundle: Bundle, digits: Dataset, tmp_path: Path, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        train(bundle, digits, Settings(**settings), tmp_path / "run")
    assert list(tmp_path.iterdir()) == []


def test_a_run_remembers_where_its_data_lie(
    bundle: Bundle, digits: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    train(bundle, digits, Settings(data="scans", epochs=1, device="cpu", threads=1), "run")
    assert Run.open("run").settings.data == str(tmp_path / "scans")


def test_data_that_does_not_fit_writes_nothing(bundle: Bundle, digits: Dataset, tmp_path: Path) -> None:
    cropped = Split(digits.train.images[..., 1:], digits.train.labels)
    with pytest.raises(DataError):
        train(bundle, Dataset("cropped", cropped, digits.test), SETTINGS, tmp_path / "run")
    assert list(tmp_path.iterdir()) == []


def test_a_run_goes_on_with_its_own_data_only(bundle: Bundle, digits: Dataset, finished: Summary) -> None:
    shifted = Dataset("digits", Split(digits.train.images, np.roll(digits.train.labels, 1)), digits.test)
    with pytest.raises(DataError, match="the data are not those the run began with"):
        resume(finished.run, shifted, epochs=4)
    assert Run.open(finished.run).settings.epochs == 3


def test_training_imports_no_part_of_the_compiler(bundle: Bundle, tmp_path: Path) -> None:
    program = f"""
import sys
from cnnc.bundle import Bundle
from cnnc.data import load
from cnnc.runtime import Run, Settings, resume, train
settings = Settings(epochs=1, device="cpu", threads=1)
train(Bundle.open({str(bundle.path)!r}), load("digits"), settings, {str(tmp_path / "run")!r})
resume({str(tmp_path / "run")!r}, load("digits"), epochs=2)
forbidden = ["onnx", "onnx_ir", "sympy", *(f"cnnc.{{part}}" for part in (
    "autodiff", "compiler", "ir", "losses", "lowering", "metrics", "nn", "optim", "program", "schedules"))]
print([name for name in forbidden if name in sys.modules])
"""
    child = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (child.stdout.strip(), child.stderr) == ("[]", "")
