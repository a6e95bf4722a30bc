"""The tuner: what it keeps, what it refuses, and that a run on a tuned step is as good as any."""

from __future__ import annotations

import json
import multiprocessing
import shutil
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from command_line import call, done
from tiny_bundle import write_tiny_bundle

from cnnc import Program, Tensor, losses, metrics, nn, optim
from cnnc.bundle import GRAPHS, JOIN, LANE, Bundle, write_bundle
from cnnc.compiler import compile_program
from cnnc.data import load
from cnnc.deploy.verify import verify
from cnnc.errors import BundleError, Interrupted, ModelError, RunError, UnsupportedError
from cnnc.graphs import digits, mnist
from cnnc.layout import FORMS
from cnnc.layout.form import Output, Site, form
from cnnc.layout.order import HWNC
from cnnc.layout.step import fixed_step, laned_step, planned_step
from cnnc.memory import MemoryLimit
from cnnc.runtime import Callback, Run, Settings, StepSession, resume, train
from cnnc.runtime.tuned import (
    FOLDER,
    RECORD,
    STEP,
    Conditions,
    TunedStep,
    cache_folder,
    cached,
)
from cnnc.tuner import candidates, search, tune
from cnnc.tuner.bundle import write_tuned_bundle
from cnnc.tuner.candidates import Candidate, groups_of
from cnnc.tuner.race import race

BATCH = 16


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CNNC_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    compiled = compile_program(digits.program)
    return write_bundle(
        tmp_path_factory.mktemp("tuner") / "digits", compiled.manifest, compiled.graphs, compiled.state
    )


def quick(bundle: Bundle, **options: Any) -> TunedStep:
    return tune(bundle, BATCH, threads=1, **{"seconds": 1.0, **options}).step


def forced(bundle: Bundle, layout: str = "HWNC") -> TunedStep:
    """Everything in one layout, in the cache as if that were the fastest."""
    step, conditions = fixed_step(bundle, BATCH), Conditions.of(bundle, BATCH, 1)
    groups = groups_of(step)
    chosen = Candidate(groups, tuple(group.in_layout(layout) for group in groups))
    assert chosen.plan
    record = TunedStep(cache_folder(), conditions, chosen.plan, chosen.choices, {}, 1, 2.0, 1.0, 0.0, 1)
    return record.write(cache_folder() / conditions.key, planned_step(step, chosen.plan, chosen.choices))


def test_a_tuned_step_is_found_again_in_the_cache(bundle: Bundle) -> None:
    first = tune(bundle, BATCH, threads=1, seconds=1.0)
    again = tune(bundle, BATCH, threads=1, seconds=1.0)
    assert (first.from_cache, again.from_cache) == (False, True)
    assert first.step == again.step
    other = Conditions.of(bundle, BATCH + 1, 1)
    assert cached(other) is None
    assert len({other.key, first.step.conditions.key, replace(other, exact=True).key}) == 3


@pytest.mark.parametrize(
    "damage", ["truncated step", "altered step", "altered record", "no record", "garbage", "version"]
)
def test_a_damaged_cache_counts_as_empty_and_is_written_anew(bundle: Bundle, damage: str) -> None:
    found = quick(bundle)
    folder = found.path.parent
    record = folder / RECORD
    if damage == "truncated step":
        found.path.write_bytes(found.path.read_bytes()[:-1])
    elif damage == "altered step":
        data = bytearray(found.path.read_bytes())
        data[len(data) // 2] ^= 1
        found.path.write_bytes(data)
    elif damage == "altered record":
        record.write_text(json.dumps({**json.loads(record.read_text()), "options": {"no.such": "1"}}))
    elif damage == "no record":
        record.unlink()
    elif damage == "garbage":
        record.write_bytes(b"\xff{" * 100)
    else:
        record.write_text(json.dumps({**json.loads(record.read_text()), "version": 99}))
    assert cached(found.conditions) is None
    again = tune(bundle, BATCH, threads=1, seconds=0.0)
    assert not again.from_cache
    assert cached(found.conditions) == again.step


def test_without_time_the_portable_step_is_kept(bundle: Bundle) -> None:
    found = quick(bundle, seconds=0.0)
    assert not found.plan
    assert not found.choices
    assert found.tried == 1


def test_a_form_that_is_wrong_or_does_not_load_is_dropped_and_named(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wrong(op: Site) -> Output:
        """The sine of what it should be."""
        return op.Sin(op.Transpose(right(op), perm=[2, 3, 0, 1]))

    def broken(op: Site) -> Output:
        """No operator of any runtime."""
        dims = HWNC.dims(op.out)
        return op.builder.extension("NoSuchOperator", "com.example", op.read(0, HWNC), dims=dims)

    def right(op: Site) -> Output:
        inputs = [op.plain(i) for i in range(len(op.node.inputs))]
        attributes = {name: attr.value for name, attr in op.node.attributes.items()}
        return op.Conv(*inputs, **attributes, dims=op.out)

    monkeypatch.setitem(FORMS, "Conv", {})
    form("Conv", HWNC)(wrong)
    form("Conv", HWNC)(broken)
    for part in (candidates, search):
        monkeypatch.setattr(part, "LAYOUTS", ("HWNC",))
    said: list[str] = []
    found = quick(bundle, seconds=20.0, say=said.append)
    assert not [name for name in found.plan.values() if name in ("HWNC.wrong", "HWNC.broken")]
    assert any("HWNC.wrong" in words and ": its " in words for words in found.dropped), found.dropped
    assert any("HWNC.broken" in words and "NoSuchOperator" in words for words in found.dropped)
    assert any(words.startswith("dropped") for words in said)


class Runner:
    """A contestant whose steps take so many milliseconds."""

    def __init__(self, milliseconds: float) -> None:
        self.quick, self.steps = milliseconds, 0
        self.times: list[float] = []

    def run(self, count: int) -> None:
        self.steps += count
        self.times += [self.quick] * count


@pytest.mark.parametrize(
    ("mine", "other", "wins", "steps"),
    [
        (0.9, 1.0, True, 8 * 40 + 39),  # fast steps make turns as long as others'
        (98.0, 100.0, True, 8),
        (99.5, 100.0, False, 8),
        (900.0, 1000.0, True, 2),  # slow ones make fewer
        (103.0, 100.0, False, 8),
        (140.0, 100.0, False, 3),  # and what is far behind is given up, the sooner the farther
        (250.0, 100.0, False, 1),
    ],
)
def test_a_race_is_as_long_as_it_must_be(mine: float, other: float, wins: bool, steps: int) -> None:
    challenger, fastest = Runner(mine), Runner(other)
    assert race(challenger, fastest, 0.99) is wins  # type: ignore[arg-type]  # a race asks no more of them
    assert challenger.steps == steps
    assert len(challenger.times) == len(fastest.times)


def test_what_wins_apart_in_one_layout_is_joined_and_found_by_its_name(bundle: Bundle) -> None:
    groups = groups_of(fixed_step(bundle, BATCH))
    group = next(g for g in groups if len([v for v in g.variants if v.layout == "HWNC"]) > 3)
    first, *others = (v for v in group.variants if v.layout == "HWNC")
    apart = {tuple(map(str.__ne__, map(str, v.forms), map(str, first.forms))): v for v in others}
    one, two = [v for differs, v in apart.items() if sum(differs) == 1][:2]
    both = group.merged(one, two)
    differing = [i for i, form in enumerate(first.forms) if both.forms[i] != form]
    assert len(differing) == 2
    assert group.called(both.name) == both
    assert group.called(one.name) == one
    assert group.called("HWNC.nothing") == group.plain
    assert group.merged(one, group.in_layout("CHWN")) == group.in_layout("CHWN")
    assert group.merged(group.plain, two) == two
    plain = Candidate(groups, tuple(group.plain for group in groups))
    moved = plain.moved(group.size, "HWNC")
    assert {g.size for g, v in zip(groups, moved.variants, strict=True) if v != g.plain} == {group.size}


def test_nothing_illegal_is_a_variant_and_exact_leaves_winograd_out(bundle: Bundle) -> None:
    step = fixed_step(bundle, BATCH)
    legal = {
        (str(node.name), f.name)
        for node in step
        for f in FORMS.get(node.op_type, {}).values()
        if node.op_type == "Conv"
    }
    named = {
        name for group in groups_of(step) for variant in group.variants for name in variant.forms if name
    }
    assert {name for name in named if "winograd" in name}
    exact = {
        name
        for group in groups_of(step, exact=True)
        for variant in group.variants
        for name in variant.forms
        if name
    }
    assert not {name for name in exact if "winograd" in name}
    assert exact < named
    assert legal


@pytest.mark.parametrize("limit", [10_000, 165])
def test_a_step_that_fits_into_a_memory_limit_is_not_tuned(limit: int, tmp_path: Path) -> None:
    """It may go in chunks, in a Loop, whose inner functions a search would not find."""
    program = replace(
        digits.program, model=nn.Sequential(nn.Conv2d(64, 3), nn.GELU(), nn.Flatten(), nn.Dense(10))
    )
    compiled = compile_program(program, memory=MemoryLimit(limit * 10**6, 256))
    assert (compiled.manifest.memory and compiled.manifest.memory.chunks > 1) is (limit < 1000)
    bundle = write_bundle(tmp_path / "b", compiled.manifest, compiled.graphs, compiled.state)
    with pytest.raises(UnsupportedError, match="built to fit into a memory limit"):
        tune(bundle, BATCH)


def test_a_tuned_step_gives_the_portable_step(bundle: Bundle) -> None:
    """Some steps, a short batch among them, from one state: in either session the same to rounding."""
    found = forced(bundle)
    data = load("digits").train
    sessions = [StepSession(bundle, "cpu", 1), StepSession(bundle, "cpu", 1, tuned=found)]
    for begin, end in ((0, BATCH), (BATCH, 2 * BATCH), (2 * BATCH, 2 * BATCH + 5), (0, BATCH)):
        images = data.images[begin:end].astype(np.float32) / 16
        images = images.reshape(-1, 1, 8, 8)
        labels = data.labels[begin:end].astype(np.int64)
        losses = [session.step(images, labels)[0] for session in sessions]
        assert losses[0] == pytest.approx(losses[1], rel=1e-3)
    _assert_near(*(session.state() for session in sessions))


def _assert_near(one: Mapping[str, Any], other: Mapping[str, Any]) -> None:
    for name, value in one.items():
        np.testing.assert_allclose(value, other[name], rtol=0.02, atol=0.02 * (np.abs(value).max() + 1e-6))


def test_a_tuned_bundle_is_a_bundle_marked_as_this_machine_s(bundle: Bundle, tmp_path: Path) -> None:
    found = forced(bundle)
    tuned = write_tuned_bundle(bundle, found, tmp_path / "tuned")
    reopened = Bundle.open(tmp_path / "tuned")
    assert reopened.manifest == tuned.manifest
    assert reopened.manifest.machine is not None
    assert reopened.manifest.input.shape == (BATCH, 1, 8, 8)
    onnx.checker.check_model(onnx.load(reopened.graph("grad.onnx")), full_check=True)
    with pytest.raises(BundleError, match="tuned for one machine"):
        verify(tmp_path / "tuned")
    bodies = {function.node: function.body for function in reopened.manifest.functions}
    for node, form_name in found.plan.items():
        if node in bodies:
            assert bodies[node] == form_name
    # A batch of another size takes the other form of the same step.
    portable, fixed = StepSession(bundle, "cpu", 1), StepSession(reopened, "cpu", 1)
    random = np.random.default_rng(0)
    for size in (5, BATCH, 3):
        images = random.random((size, 1, 8, 8), np.float32)
        labels = random.integers(0, 10, size)
        ours, theirs = fixed.step(images, labels), portable.step(images, labels)
        assert ours[0] == pytest.approx(theirs[0], rel=1e-3)
    _assert_near(portable.state(), fixed.state())


def test_a_step_in_float64_is_tuned_and_takes_a_short_batch(tmp_path: Path) -> None:
    program = Program(
        input=Tensor("image", ("N", 2, 3, 3)),
        model=nn.Sequential(nn.Flatten(), nn.Dense(4, activation="tanh"), nn.Dense(2)),
        loss=losses.MeanSquaredError(),
        optimizer=optim.SGD(0.1, momentum=0.9),
    )
    compiled = compile_program(program, dtype=ir.DataType.DOUBLE)
    bundle = write_bundle(tmp_path / "plain", compiled.manifest, compiled.graphs, compiled.state)
    tuned = write_tuned_bundle(bundle, quick(bundle), tmp_path / "tuned")
    portable, fixed = StepSession(bundle, "cpu", 1), StepSession(tuned, "cpu", 1)
    random = np.random.default_rng(0)
    for size in (BATCH, 5):
        images, values = random.standard_normal((size, 2, 3, 3)), random.standard_normal((size, 2))
        ours, theirs = fixed.step(images, values), portable.step(images, values)
        assert ours[0] == pytest.approx(theirs[0], rel=1e-6)
    _assert_near(portable.state(), fixed.state())


class StopAt(Callback):
    def __init__(self, epoch: int) -> None:
        self.epoch = epoch

    def on_epoch(self, row: Mapping[str, Any], improved: bool) -> None:
        if row["epoch"] == self.epoch:
            raise Interrupted("as a test wants")


def test_a_run_keeps_its_tuned_step_and_goes_on_with_it_to_the_same_bits(
    bundle: Bundle, tmp_path: Path
) -> None:
    forced(bundle)
    settings = Settings(epochs=2, batch_size=BATCH, device="cpu", threads=1)
    data = load("digits")
    whole = train(bundle, data, settings, tmp_path / "whole")
    assert (tmp_path / "whole" / FOLDER / STEP).exists()
    with pytest.raises(Interrupted):
        train(bundle, data, settings, tmp_path / "cut", [StopAt(1)])
    shutil.rmtree(cache_folder())  # the run needs no cache
    resume(tmp_path / "cut", data)
    assert whole.epochs == 2
    name = "last.safetensors"
    assert _arrays(tmp_path / "whole" / name) == _arrays(tmp_path / "cut" / name)
    (tmp_path / "cut" / FOLDER / STEP).write_bytes(b"")
    with pytest.raises(RunError, match="the tuned step of this run is truncated or altered"):
        resume(Run.open(tmp_path / "cut"), data, epochs=3)


def _arrays(path: Path) -> dict[str, bytes]:
    from cnnc.bundle import read_state

    return {key: value.tobytes() for key, value in read_state(path)[0].items()}


@pytest.fixture
def laned(tmp_path: Path) -> tuple[Bundle, TunedStep]:
    """Without batch normalisation, and its step in 2 lanes of 2 chunks, as if that were the fastest."""
    layers = [nn.Conv2d(8, 3, activation="relu"), nn.MaxPool2d(2), nn.Flatten(), nn.Dense(10)]
    program = Program(
        input=Tensor("image", ("N", 1, 8, 8)),
        model=nn.Sequential(*layers),
        loss=losses.SoftmaxCrossEntropy(),
        optimizer=optim.Adam(1e-3),
        metrics=[metrics.Accuracy()],
    )
    compiled = compile_program(program)
    bundle = write_bundle(tmp_path / "plain", compiled.manifest, compiled.graphs, compiled.state)
    conditions = Conditions.of(bundle, BATCH, 2)
    graphs = fixed_step(bundle, BATCH), *laned_step(bundle, BATCH, 2, 2)
    record = TunedStep(cache_folder(), conditions, {}, {}, {}, 1, 2.0, 1.0, 0.0, 1, lanes=2, lane_chunks=2)
    models = [planned_step(graph, {}) for graph in graphs]
    return bundle, record.write(cache_folder() / conditions.key, *models)


def test_lanes_give_the_portable_step(laned: tuple[Bundle, TunedStep]) -> None:
    bundle, tuned = laned
    portable, fast = StepSession(bundle, "cpu", 2), StepSession(bundle, "cpu", 2, tuned=tuned)
    random = np.random.default_rng(0)
    for size in (BATCH, BATCH, 5, BATCH):  # a short batch takes train.onnx and gives its state back
        images = random.standard_normal((size, 1, 8, 8)).astype(np.float32)
        labels = random.integers(0, 10, size)
        (loss, sums), (expected, right) = fast.step(images, labels), portable.step(images, labels)
        np.testing.assert_allclose(loss, expected, rtol=1e-6)
        assert sums["accuracy"] == right["accuracy"]
    for name, value in portable.state().items():
        np.testing.assert_allclose(fast.state()[name], value, rtol=1e-5, atol=1e-6, err_msg=name)


def test_a_lane_that_fails_leaves_the_state(laned: tuple[Bundle, TunedStep]) -> None:
    bundle, tuned = laned
    session = StepSession(bundle, "cpu", 2, tuned=tuned)
    before = session.state()
    with pytest.raises(ModelError):
        session.step(np.zeros((BATCH, 1, 7, 8), np.float32), np.zeros(BATCH, np.int64))
    after = session.state()
    assert all(np.array_equal(value, after[name]) for name, value in before.items())
    session.step(np.zeros((BATCH, 1, 8, 8), np.float32), np.zeros(BATCH, np.int64))


def test_a_run_in_lanes_keeps_its_graphs_and_resumes_to_the_same_bits(
    laned: tuple[Bundle, TunedStep], tmp_path: Path
) -> None:
    bundle, _ = laned
    data = load("digits")
    settings = Settings(epochs=2, batch_size=BATCH, device="cpu", threads=2, limit=200)
    train(bundle, data, settings, tmp_path / "whole")
    assert {LANE, JOIN, STEP, RECORD} == {path.name for path in (tmp_path / "whole" / FOLDER).iterdir()}
    with pytest.raises(Interrupted):
        train(bundle, data, settings, tmp_path / "cut", [StopAt(1)])
    resume(tmp_path / "cut", data)
    name = "last.safetensors"
    assert _arrays(tmp_path / "whole" / name) == _arrays(tmp_path / "cut" / name)
    (tmp_path / "cut" / FOLDER / JOIN).write_bytes(b"")
    with pytest.raises(RunError, match="the tuned step of this run is truncated or altered"):
        resume(Run.open(tmp_path / "cut"), data, epochs=3)


def test_a_tuned_bundle_has_the_lanes_too(laned: tuple[Bundle, TunedStep], tmp_path: Path) -> None:
    bundle, found = laned
    tuned = write_tuned_bundle(bundle, found, tmp_path / "tuned")
    sessions = StepSession(bundle, "cpu", 2, tuned=found), StepSession(Bundle.open(tuned.path), "cpu", 2)
    random = np.random.default_rng(0)
    for size in (BATCH, 5, BATCH):
        images = random.standard_normal((size, 1, 8, 8)).astype(np.float32)
        labels = random.integers(0, 10, size)
        first, second = (session.step(images, labels) for session in sessions)
        assert first == second or size != BATCH  # a short batch takes train.onnx, or grad.onnx and apply.onnx
    states = [session.state() for session in sessions]
    for name, value in states[0].items():
        np.testing.assert_allclose(states[1][name], value, rtol=1e-5, atol=1e-6, err_msg=name)
    settings = Settings(epochs=1, batch_size=BATCH, device="cpu", threads=2, limit=200)
    train(tuned, load("digits"), settings, tmp_path / "run")
    resume(tmp_path / "run", load("digits"), epochs=2)
    (tmp_path / "tuned" / JOIN).write_bytes(b"")
    with pytest.raises(BundleError, match="truncated or altered") as caught:
        Bundle.open(tmp_path / "tuned")
    assert JOIN in str(caught.value)
    assert write_tuned_bundle(bundle, found, tmp_path / "tuned").graph(LANE).exists()  # replaces the old one
    write_bundle(tmp_path / "tuned", bundle.manifest, _graphs(bundle), bundle.initial_state())
    assert not (tmp_path / "tuned" / LANE).exists()


def _graphs(bundle: Bundle) -> dict[str, bytes]:
    return {name: bundle.graph(name).read_bytes() for name in GRAPHS}


def test_a_short_run_is_not_tuned_unless_asked_and_never_with_no_tune(tmp_path: Path) -> None:
    tiny = write_tiny_bundle(tmp_path / "tiny")
    options = ("--data", "digits", "--epochs", 1, "--batch-size", 64, "--threads", 1)
    done("train", tiny.path, *options, "-o", tmp_path / "auto")
    done("train", tiny.path, *options, "--no-tune", "-o", tmp_path / "never")
    assert not (tmp_path / "auto" / FOLDER).exists()
    assert not (tmp_path / "never" / FOLDER).exists()


def test_a_failing_tuner_is_told_and_the_portable_step_is_used(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("CNNC_CACHE", str(tmp_path / "file"))
    heard: list[str] = []

    class Hear(Callback):
        def on_tune(self, words: str) -> None:
            heard.append(words)

    settings = Settings(epochs=1, batch_size=256, device="cpu", threads=1, tune=True)
    train(bundle, load("digits"), settings, tmp_path / "run", [Hear()])
    assert any("tuning failed, so the portable step is used" in words for words in heard)
    assert not (tmp_path / "run" / FOLDER).exists()


def test_the_command_line(tmp_path: Path, bundle: Bundle) -> None:
    out = tmp_path / "out"
    record = json.loads(
        done(
            "tune", bundle.path, "--batch-size", BATCH, "--seconds", 1, "--threads", 1, "-o", out, "--json"
        ).out
    )
    assert record["conditions"]["batch"] == BATCH
    assert record["bundle"] == str(out)
    assert Bundle.open(out).manifest.machine is not None
    text = done("tune", bundle.path, "--batch-size", BATCH, "--threads", 1).out
    assert text.startswith("from the cache:")
    failed = call("tune", tmp_path / "nothing.bundle")
    assert failed.status == 1
    assert "no such bundle" in failed.err


def _tune_in_process(path: str) -> Mapping[str, str]:
    return tune(Bundle.open(path), BATCH, threads=1, seconds=0.5).step.sha256


def test_two_processes_tuning_at_once_don_t_harm_each_other(bundle: Bundle) -> None:
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        hashes = pool.map(_tune_in_process, [str(bundle.path)] * 2)
    kept = cached(Conditions.of(bundle, BATCH, 1))
    assert kept is not None
    assert kept.sha256 in hashes


def test_writing_one_step_at_once_again_and_again_fails_nobody(tmp_path: Path) -> None:
    conditions = Conditions("graph", BATCH, 1, False, "CPU", "1", "processor", "1")
    step, key = TunedStep(tmp_path, conditions, {}, {}, {}, 1, 2.0, 1.0, 0.0, 1), tmp_path / "steps" / "key"

    def write(number: int) -> None:
        for turn in range(10):
            step.write(key, b"%d" % number, replace=(number + turn) % 3 > 0)

    with ThreadPoolExecutor(4) as pool:
        for writing in [pool.submit(write, number) for number in range(4)]:
            writing.result()
    assert TunedStep.read(key) is not None
    assert [path.name for path in key.parent.iterdir()] == ["key"]


def test_groups_hold_what_is_alike(tmp_path: Path) -> None:
    compiled = compile_program(mnist.program)
    written = write_bundle(tmp_path / "mnist", compiled.manifest, compiled.graphs, compiled.state)
    groups = groups_of(fixed_step(written, 8))
    assert groups[0].name == "conv1"
    assert all(len(group.variants) > 1 for group in groups)
