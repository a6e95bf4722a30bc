"""The benchmarks' machinery, without peers: the networks are the same, who differs is out, the ratios."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import __main__ as command_line
from benchmarks import contestants, environments, loop, report
from benchmarks.architectures import ARCHITECTURES, BatchNorm, Conv, with_parameters
from benchmarks.contestants import CNNC, EAGER, Contestant
from benchmarks.driver import DisagreementError, Entry, Plan, check, measure
from benchmarks.inputs import choices
from benchmarks.networks import ROWS, Row, program
from benchmarks.worker import Worker, WorkerError
from benchmarks.workers.layouts import channels_last_batches, channels_last_state
from benchmarks.workers.protocol import BATCHES, STATE, Job, Task
from cnnc import optim
from cnnc.bundle import FunctionSpec, write_bundle
from cnnc.compiler import compile_program
from cnnc.errors import UsageError
from cnnc.runtime import StepSession

STATISTICS = ("running_mean", "running_var")


@pytest.mark.parametrize("network", ARCHITECTURES)
def test_architecture_and_program_have_the_same_parameters(network: str) -> None:
    expected: dict[str, tuple[int, ...]] = {}
    for layer in with_parameters(ARCHITECTURES[network].layers):
        if isinstance(layer, BatchNorm):
            expected |= {f"{layer.name}.{w}": (layer.channels,) for w in ("weight", "bias", *STATISTICS)}
        elif isinstance(layer, Conv):
            shape = (layer.outputs, layer.inputs // layer.groups, layer.kernel, layer.kernel)
            expected |= {f"{layer.name}.weight": shape}
            expected |= {f"{layer.name}.bias": (layer.outputs,)} if layer.bias else {}
        else:
            expected |= {f"{layer.name}.weight": (layer.inputs, layer.outputs)}
            expected |= {f"{layer.name}.bias": (layer.outputs,)}
    traced = program(network).trace().parameters
    assert {name: parameter.type.dims for name, parameter in traced.items()} == expected


def test_channels_last_is_the_same_network(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    weight, filters = draw.random((32 * 13 * 13, 10)), draw.random((32, 1, 3, 3))
    images = draw.random((1, 2, 32, 13, 13))
    arrays: dict[str, Any] = {"dense1.weight": weight, "conv1.weight": filters}
    np.savez(tmp_path / STATE, **arrays)
    np.savez(tmp_path / BATCHES, images=images, labels=np.zeros((1, 2), np.int64))
    job = Job("mission", "train", 1, str(tmp_path), {})
    state, ((turned, _),) = channels_last_state(job), channels_last_batches(job)
    assert state["conv1.weight"].shape == (3, 3, 1, 32)
    assert np.array_equal(turned, images[0].transpose(0, 2, 3, 1))
    np.testing.assert_allclose(
        turned.reshape(2, -1) @ state["dense1.weight"], images[0].reshape(2, -1) @ weight
    )


def test_rows_by_name() -> None:
    assert Row.parse("vgg:7") == replace(Row.parse("vgg:64"), batch=7)
    assert all(Row.parse(str(row)) == row for row in ROWS)


@pytest.mark.parametrize("text", ["vgg", "vgg:0", "vgg:x", "vgg:-1", "lenet:3", ""])
def test_no_row(text: str) -> None:
    with pytest.raises(ValueError, match="is no row"):
        Row.parse(text)


def test_contestants_by_name() -> None:
    assert contestants.parse("pytorch") == EAGER
    made = contestants.parse("cnnc:ConvGradWeight=one_hot,grad/pool1/input=columns")
    assert made.options == {"ConvGradWeight": "one_hot", "grad/pool1/input": "columns"}
    assert not made.is_peer


@pytest.mark.parametrize("text", ["torch", "pytorch:memory=odd", "cnnc:bundle", "cnnc:bundle=", ""])
def test_no_contestant(text: str) -> None:
    with pytest.raises(ValueError, match="is no contestant"):
        contestants.parse(text)


def test_bodies_by_op_and_by_node() -> None:
    functions = tuple(
        FunctionSpec(node, op, "first", op) for node, op in (("a", "Pool"), ("b", "Pool"), ("c", "Conv"))
    )
    assert choices({"Pool": "second", "b": "third"}, functions) == {"a": "second", "b": "third"}
    with pytest.raises(UsageError, match="Did you mean 'Pool'"):
        choices({"Pol": "second"}, functions)


def test_agreement() -> None:
    assert check([2.0, 1.0], [2.0, 1.0001], "train") == pytest.approx(5e-5)
    assert check([2.0, 1.0005], [2.0, 1.0], "train") == pytest.approx(2.5e-4)
    wrong: list[tuple[list[float], Task]] = [
        ([2.0, 1.0005], "evaluate"),
        ([2.0005, 1.0], "train"),
        ([2.0, float("nan")], "train"),
        ([2.0], "train"),
    ]
    for numbers, task in wrong:
        with pytest.raises(DisagreementError):
            check(numbers, [2.0, 1.0], task)


Start = Callable[[str], Worker]

FAKE = """
import sys, time
from benchmarks.workers.protocol import serve

def contestant(job):
    print("a library that talks")
    print("the reason", file=sys.stderr)
    if job.options["mood"] == "late":
        time.sleep(60)
    return lambda i: {"good": [i, 0.5], "broken": None}[job.options["mood"]]

serve(contestant, "numpy")
"""


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start a worker of that mood; it is closed at the end."""
    started: list[Worker] = []

    def start(mood: str) -> Worker:
        job = Job("mission", "infer", 1, str(tmp_path), {"mood": mood})
        command = [sys.executable, "-c", FAKE, job.to_json()]
        started.append(Worker(command, environments.ROOT, 1, tmp_path / "log"))
        return started[-1]

    yield start
    for worker in started:
        worker.close()
        assert worker.process.returncode is not None


def test_a_worker_answers_and_is_stopped_between_answers(start: Start) -> None:
    worker = start("good")
    loaded = worker.answer(60)
    assert loaded["numbers"] == [0, 0.5, 1, 0.5, 2, 0.5, 3, 0.5, 4, 0.5]
    assert loaded["versions"] == {"numpy": np.__version__}
    for _ in range(2):
        status = Path(f"/proc/{worker.process.pid}/status").read_text()
        assert "State:\tT (stopped)" in status
        turn = worker.ask({"warm_up": 2, "steps": 3}, 60)
        assert len(turn["milliseconds"]) == 3
        assert 1 < turn["peak_memory_mb"] < 1000


def test_a_worker_that_ends_tells_why(start: Start) -> None:
    with pytest.raises(WorkerError, match="it ended: TypeError"):
        start("broken").answer(60)


def test_a_worker_that_does_not_answer(start: Start) -> None:
    with pytest.raises(WorkerError, match="did not answer within"):
        start("late").answer(0.2)


def test_a_row_from_compilation_to_table(tmp_path: Path) -> None:
    faster = replace(program("mission"), optimizer=optim.Adam(2e-3))
    compiled = compile_program(faster)
    other = write_bundle(tmp_path / "other", compiled.manifest, compiled.graphs, compiled.state).path
    names = ["cnnc", "cnnc:MaxPoolGrad=columns", "cnnc:MaxPoolGrad=none", f"cnnc:bundle={other}", "jax"]
    said: list[str] = []
    entries = measure(
        Row("mission", 2),
        [contestants.parse(name) for name in names],
        Plan("train", 1, 2, 3, 1, tmp_path / "environments", tmp_path / "logs"),
        said.append,
    )
    outs = dict(zip(names, (entry.out for entry in entries), strict=True))
    assert not outs["cnnc"]
    assert not outs["cnnc:MaxPoolGrad=columns"]
    assert "under the name 'none'" in outs["cnnc:MaxPoolGrad=none"]
    assert "its number 2 is" in outs[f"cnnc:bundle={other}"]
    assert "python -m benchmarks setup jax" in outs["jax"]
    assert [[len(turn) for turn in entry.turns] for entry in entries] == [[3, 3], [3, 3], [], [], []]
    assert "mission:2 round 2 of 2" in said


@pytest.mark.parametrize("task", ["evaluate", "infer"])
def test_the_command_line_writes_tables(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], task: str
) -> None:
    arguments = ["--rows", "mission:2", "--contestants", "cnnc", "--rounds", "1", "--steps", "1"]
    assert command_line.main(["run", *arguments, "--task", task, "--output", str(tmp_path)]) == 0
    assert f"## mission:2, {task}" in capsys.readouterr().out
    record = json.loads((tmp_path / "results.json").read_text())
    assert [line["contestant"] for line in record["rows"][0]["lines"]] == ["cnnc"]


def entry(contestant: Contestant, *turns: list[float], out: str = "") -> Entry:
    return Entry(contestant, {"library": "1.0"}, 1e-6, list(turns), 100.0, out)


def test_ratios_are_formed_within_rounds() -> None:
    xla, jax = contestants.parse("keras-xla"), contestants.parse("jax")
    table = report.tabulate(
        Row("vgg", 64),
        "train",
        [
            entry(CNNC, [1, 1, 9], [10, 10, 10], [2, 2, 2]),
            entry(EAGER, [4, 4, 4], [40, 40, 40], [6, 6, 6]),
            entry(xla, [2, 2, 2], [20, 20, 20], [4, 4, 4]),
            entry(jax, [1, 1, 1], out="it ended"),
        ],
        0.0,
    )
    assert [line.contestant for line in table.lines] == ["cnnc", "keras-xla", "pytorch"]
    assert [line.to_eager for line in table.lines] == [0.25, 0.5, 1.0]
    assert [line.to_best_peer for line in table.lines] == [0.5, 1.0, 2.0]
    assert (table.lines[0].median_ms, table.lines[0].fastest_ms) == (2.0, 1.0)
    text = report.markdown([table], report.machine(), 2)
    assert "| cnnc | 2.00 | 1.00 | 0.25 | 0.50 | 100 | 1e-06 |" in text
    assert "jax is out: it ended" in text
    assert "- library 1.0: cnnc, pytorch, keras-xla" in text


def test_a_table_without_peers() -> None:
    table = report.tabulate(Row("vgg", 64), "train", [entry(CNNC, [1.0])], 0.0)
    assert table.lines[0].to_eager is None
    assert table.lines[0].to_best_peer is None


def test_the_loop_is_measured(tmp_path: Path) -> None:
    compiled = compile_program(program("mission"))
    bundle = write_bundle(tmp_path / "bundle", compiled.manifest, compiled.graphs, compiled.state)
    original = StepSession.step
    cost = loop.measure(bundle, batch=2, steps=3, rounds=2, epochs=2)
    assert (cost.batch, cost.rounds) == (2, 2)
    assert min(cost.bare_ms, cost.step_ms, cost.between_ms, cost.between, cost.work) > 0
    assert StepSession.step is original


def test_an_environment_that_can_not_be(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(sys, "version_info", (3, 99))
    monkeypatch.setattr(shutil, "which", lambda name: None)
    arguments = ["setup", "onnxruntime-training", "--environments", str(tmp_path)]
    assert command_line.main(arguments) == 1
    assert "it needs python3.11, which is not on the PATH" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
