"""Ctrl-C in the middle of training: the state is saved, and the run goes on to the same bits."""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path

import numpy as np
from command_line import PROGRAM, done
from tiny_bundle import write_tiny_bundle

from cnnc.bundle import read_state

EPOCHS = 8


def test_ctrl_c_saves_and_resume_ends_with_the_same_bits(tmp_path: Path) -> None:
    bundle = write_tiny_bundle(tmp_path / "tiny").path
    command = ["train", str(bundle), "--data", "digits", "--batch-size", "2", "--epochs", str(EPOCHS)]
    command += ["--device", "cpu", "--threads", "1", "-o"]
    stopped, whole = tmp_path / "stopped", tmp_path / "whole"

    with subprocess.Popen(
        [*PROGRAM, *command, str(stopped), "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        for line in process.stderr:
            if line.startswith("epoch 2/"):
                break
        process.send_signal(signal.SIGINT)
        said = process.stderr.read().splitlines()[-1]
        assert process.stdout.read() == ""
    assert process.returncode == 130
    assert said.startswith(f"{stopped}: stopped at step ")
    assert said.endswith(f"the state is saved. Go on with `cnnc train --resume {stopped}`.")
    assert not (stopped / "summary.json").exists()

    resumed = done("train", "--resume", stopped)
    assert ", from step " in resumed.err
    done("train", *command[1:], whole, "-q")
    for name in ("last.safetensors", "best.safetensors"):
        ours, theirs = (read_state(run / name)[0] for run in (stopped, whole))
        assert ours.keys() == theirs.keys()
        for key, values in ours.items():
            np.testing.assert_array_equal(values, theirs[key], strict=True)
