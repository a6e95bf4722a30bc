"""What a training run shows while it runs: a live line on a terminal, plain lines elsewhere."""

from __future__ import annotations

import io
import os
import re
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from cnnc.cli import progress
from cnnc.cli.live import Live
from cnnc.cli.progress import Lines, speed, start_lines
from cnnc.runtime import Callback, Moment, Start

START = Start(Path("runs/a-1"), "the CPU", 1, 10, 1875, 32, step=7, notes=("3 nodes run elsewhere.",))
ROW = {
    **{"epoch": 3, "step": 5625, "train_loss": 0.12345, "train_accuracy": 0.5},
    **{"test_loss": 0.2, "test_accuracy": 0.975, "lr_scale": 1.0, "seconds": 1.0, "images_per_second": 9.0},
}
MOMENT = Moment(3, 10, 1000, 1875, 4750, {"loss": 0.12345, "accuracy": 0.9712}, 14321.4, 3723.6)
EPOCH = "epoch 3/10: accuracy 0.5000, loss 0.1235; test accuracy 0.9750, loss 0.2000"


def test_plain_lines(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    with progress.progress() as lines:
        lines.on_start(START)
        lines.on_step(MOMENT)
        monkeypatch.setattr(progress, "LINE_SECONDS", 0.0)
        lines.on_epoch(ROW, True)
        lines.on_step(MOMENT)
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == [
        "runs/a-1 on the CPU, 1 thread, from step 7",
        "10 epochs of 1,875 steps, 32 examples a step; * marks the best epoch so far",
        "3 nodes run elsewhere.",
        f"{EPOCH}; 9 images/s *",
        "epoch 3/10 step 1000/1875: accuracy 0.9712, loss 0.1235, 14,321 images/s 1:02:04 left",
    ]


@pytest.mark.parametrize("width", [80, 120])
@pytest.mark.parametrize("held_out", ["test", "validation"])
def test_a_live_table_fits_the_terminal(width: int, held_out: str) -> None:
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=width, color_system=None, highlight=False)
    live = Live(console, start_lines)
    row = {name.replace("test_", f"{held_out}_"): value for name, value in ROW.items()}
    row = {"train_mean_of_something": 0.5, f"{held_out}_mean_of_something": 0.25} | row
    moment = replace(MOMENT, values={"mean_of_something": 0.5, "loss": 0.12345, "accuracy": 0.9712})
    with live.display:
        live.on_start(START)
        live.on_step(moment)
        live.on_epoch(row, True)
        live.on_note("a note")
        live.on_step(moment)
    lines = [re.sub(r"\x1b\[[?0-9;]*[A-Za-z]", "", line) for line in re.split("[\r\n]+", screen.getvalue())]
    assert max(map(len, lines)) <= width
    finished = next(line for line in lines if line.endswith(" *") and "3/10" in line)
    assert finished.split()[:2] == ["3/10", "0.1235"]
    assert finished.split()[-4:] == ["1.0", "s", "9", "*"]
    under_way = [line for line in lines if line.split()[:1] == ["3/10"] and line != finished]
    assert {line.split()[-1] for line in under_way} == {"14,321"}, "its speed, in the column of speeds"
    assert {len(line) for line in under_way} == {len(finished.removesuffix(" *"))}
    assert any(line.split() == ["train", held_out] for line in lines)
    assert any(re.search(r"1,000/1,875 +1:02:04 left +\d+ MB", line) for line in lines)
    assert "a note" in lines
    assert any("mean of something" in line for line in lines) == (width == 120)


def test_a_log_that_nobody_reads_any_more_does_not_stop_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "w", buffering=1) as gone:
        monkeypatch.setattr(sys, "stderr", gone)
        lines = Lines()
        lines.on_start(START)
        lines.on_epoch(ROW, False)
        monkeypatch.undo()
        sys.stderr.write("")
        os.dup2(os.open(os.devnull, os.O_WRONLY), gone.fileno())  # what is buffered goes somewhere


def test_quiet_is_silent() -> None:
    with progress.progress(quiet=True) as shown:
        assert type(shown) is Callback


@pytest.mark.parametrize(
    ("seconds", "words"), [(0.4, "0:00"), (59.6, "1:00"), (3599, "59:59"), (3600, "1:00:00")]
)
def test_time_left(seconds: float, words: str) -> None:
    moment = Moment(1, 1, 1, 1, 1, {}, 1.0, seconds)
    assert speed(moment) == f"1 images/s {words} left"
