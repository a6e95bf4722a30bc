"""SIGKILL at random moments of a digits run: each run goes on to the bits of one that was never killed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from faults import in_children
from tiny_bundle import write_tiny_bundle

KILLING = """
import os, random, signal, time
from pathlib import Path
from cnnc.bundle import Bundle, read_state
from cnnc.data import load
from cnnc.runtime import Callback, Settings, loop, resume, train
from cnnc.runtime.checkpoint import BEST, LAST
from cnnc.runtime.run import SUMMARY

digits = load("digits")
SETTINGS = Settings(
    epochs=6, batch_size=16, device="cpu", threads=1, tune=False, save_every=0.0, validation=0.2,
    patience=4, plateau=1, plateau_factor=0.5, min_delta=0.002, on_nan="rollback",
)

class Started(Callback):
    def __init__(self, pipe):
        self.pipe = pipe

    def on_start(self, start):
        os.write(self.pipe, f"{start.step};".encode())

def child(job):
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            job(Started(writer))
        except BaseException as error:
            os.write(writer, f"{type(error).__name__}: {error}".encode())
            os._exit(1)
        os._exit(0)
    os.close(writer)
    return pid, reader

def ended(pid, reader):
    with open(reader) as pipe:
        said = pipe.read()
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), said

def facts(run):
    states = [read_state(run / name) for name in (LAST, BEST)]
    return [
        (run / "metrics.csv").read_bytes(),
        *({name: array.tobytes() for name, array in state.items()} for state, _ in states),
        *(metadata for _, metadata in states),
    ]

def main(bundle, folder, kills, seed):
    bundle, folder, chance = Bundle.open(bundle), Path(folder), random.Random(seed)
    began = time.monotonic()
    assert ended(*child(lambda told: train(bundle, digits, SETTINGS, folder / "whole", [told])))[0] == 0
    seconds = time.monotonic() - began
    whole = facts(folder / "whole")
    told = {"kills": 0, "starts": [], "differ": [], "errors": [], "epochs": whole[0].count(b"\\n") - 1}
    number = 0
    while told["kills"] < kills:
        run, number = folder / f"run-{number}", number + 1
        job = lambda told: train(bundle, digits, SETTINGS, run, [told])
        for _ in range(3):  # killed up to three times in one run
            pid, reader = child(job)
            time.sleep(chance.uniform(0, seconds))
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
            status, said = ended(pid, reader)
            told["errors"] += [said] if status > 0 else []
            told["kills"] += status == -signal.SIGKILL
            if (run / "settings.toml").exists():
                job = lambda told: resume(run, digits, [told])
            if (run / SUMMARY).exists():  # it had finished, even if it was killed on its way out
                status = 0
                break
        if status != 0:
            status, said = ended(*child(job))
            told["starts"].append(said)
        if status != 0:
            told["errors"].append(said)
        elif differ := [part for part, (a, b) in enumerate(zip(facts(run), whole)) if a != b]:
            told["differ"].append([run.name, differ])
    return told
"""


def check(tmp_path: Path, kills: int) -> dict[str, Any]:
    bundle = write_tiny_bundle(tmp_path / "tiny").path
    said: dict[str, Any] = in_children(
        KILLING, bundle=str(bundle), folder=str(tmp_path), kills=kills, seed=kills
    )
    assert said["errors"] == []
    assert said["differ"] == []
    assert said["kills"] >= kills
    return said


def test_killed_runs_go_on_to_the_same_bits(tmp_path: Path) -> None:
    check(tmp_path, 4)


@pytest.mark.slow
def test_fifty_kills(tmp_path: Path) -> None:
    said = check(tmp_path, 50)
    steps = {int(start.split(";")[0]) for start in said["starts"]}
    assert any(step % 72 for step in steps), "some go on in the middle of an epoch"
    assert said["epochs"] > 1
