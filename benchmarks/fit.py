"""`cnnc train` against a Keras script on the same data: seconds from the start of the process to its exit.

Both train the first network with Adam and evaluate on the test split after each epoch, at the same batch
sizes.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.environments import FOLDER, ROOT, SetupError, python


def commands(data: Path, epochs: int, environments: Path, run: Path) -> dict[str, list[str]]:
    """What each of them starts."""
    cnnc, script = Path(sys.executable).with_name("cnnc"), ROOT / "benchmarks/keras_fit.py"
    settings = ["--data", str(data), "--epochs", str(epochs), "--batch-size", "32", "--device", "cpu"]
    return {
        "cnnc": [str(cnnc), "train", "mnist", *settings, "--json", "--quiet", "-o", str(run)],
        "keras": [str(python("keras", environments)), str(script), str(data), str(epochs), "32"],
    }


def timed(command: list[str]) -> tuple[float, float]:
    """Seconds from start to exit, and the test accuracy that it printed. Raises SetupError."""
    began = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True)
    seconds = time.perf_counter() - began
    if done.returncode:
        raise SetupError(f"{command[0]} failed: {done.stderr.strip()[-500:]}")
    return seconds, float(json.loads(done.stdout[done.stdout.index("{") :])["test_accuracy"])


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of `command`."""
    parser.add_argument("--data", type=Path, required=True, help="a folder with *train.npz and *test.npz")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--output", type=Path, default=FOLDER / "results", help="for fit.json")


def command(options: argparse.Namespace) -> None:
    """Time both in turns, print and write."""
    seconds: dict[str, list[float]] = {"cnnc": [], "keras": []}
    accuracy: dict[str, list[float]] = {"cnnc": [], "keras": []}
    for _ in range(options.rounds):
        for name in random.sample(list(seconds), len(seconds)):
            with tempfile.TemporaryDirectory() as folder:
                line = commands(
                    options.data.resolve(), options.epochs, options.environments, Path(folder) / "run"
                )
                taken, reached = timed(line[name])
            seconds[name].append(taken)
            accuracy[name].append(reached)
            print(f"{name}: {taken:.1f} s, test accuracy {reached:.4f}", file=sys.stderr, flush=True)
    ratio = statistics.median(a / b for a, b in zip(seconds["cnnc"], seconds["keras"], strict=True))
    record = {"epochs": options.epochs, "seconds": seconds, "test_accuracy": accuracy, "cnnc / keras": ratio}
    options.output.mkdir(parents=True, exist_ok=True)
    (options.output / "fit.json").write_text(json.dumps(record, indent=1) + "\n")
    middle = {name: statistics.median(values) for name, values in seconds.items()}
    print(f"cnnc train {middle['cnnc']:.1f} s, Keras {middle['keras']:.1f} s: {ratio:.2f} of its time.")
