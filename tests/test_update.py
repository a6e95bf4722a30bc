"""Gradients gathered over batches, and the moving average of what moves: in both forms of the step."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest

from cnnc import Program, Tensor, losses, nn, optim, schedules
from cnnc.bundle import NEXT, Array, Bundle, Manifest, write_bundle
from cnnc.compiler import Compiled, compile_program
from cnnc.data import Dataset, Split
from cnnc.deploy.export import export
from cnnc.deploy.trained import Trained
from cnnc.deploy.verify import verify
from cnnc.errors import GraphFileError
from cnnc.ir import Network
from cnnc.runtime import Settings, evaluate, resume, train
from cnnc.runtime.initial_from import start_from
from cnnc.runtime.trainer import start_state
from cnnc.step import Recipe

RNG = np.random.default_rng(0)
SIZES = (4, 3, 1)
IMAGES = RNG.standard_normal((2, 8, 2, 6, 6)).astype(np.float32)
LABELS = RNG.integers(0, 4, (2, 8))
LABELS[0, :4] = 9  # a whole batch that counts for nothing
State = dict[str, Any]

CASES: dict[str, dict[str, Any]] = {
    "sgd": {"optimizer": optim.SGD(schedules.Step(0.1, 1), momentum=0.9)},
    "adam": {"optimizer": optim.Adam(0.01, clip_norm=0.1)},
    "adafactor": {"optimizer": optim.Adafactor(0.01)},
    "weighted": {"loss": losses.SoftmaxCrossEntropy(class_weights=(1, 2, 3, 0.5), ignore_index=9)},
    "averaged": {"average": 0.9},
    "averaged at first": {"average": 0.1},
}


def _program(**changes: Any) -> Program:
    fields: dict[str, Any] = {
        "input": Tensor("image", ("N", 2, 6, 6)),
        "model": nn.Sequential(nn.Conv2d(3, 3, activation="relu"), nn.Flatten(), nn.Dense(4)),
        "loss": losses.SoftmaxCrossEntropy(ignore_index=9),
        "optimizer": optim.SGD(0.1),
        "name": "gathered",
    }
    return Program(**{**fields, **changes})


def _compiled(**changes: Any) -> Compiled:
    return compile_program(_program(**changes))


def _train(compiled: Compiled) -> Callable[[State, Array, Array], State]:
    session = ort.InferenceSession(compiled.graphs["train.onnx"])
    return lambda state, images, labels: _next(_run(session, _feeds(state, images, labels)))


def _grad_and_apply(compiled: Compiled) -> Callable[[State, Array, Array], State]:
    grad, apply = (ort.InferenceSession(compiled.graphs[f"{n}.onnx"]) for n in ("grad", "apply"))

    def step(state: State, images: Array, labels: Array) -> State:
        feeds = _feeds(state, images, labels)
        first = _run(grad, feeds)
        return _next(first) | _next(_run(apply, feeds | first))

    return step


def _feeds(state: State, images: Array, labels: Array) -> State:
    return {"image": images, "label": labels, "lr_scale": np.array(1.0, np.float32), **state}


def _run(session: ort.InferenceSession, feeds: Mapping[str, Any]) -> State:
    names = [output.name for output in session.get_outputs()]
    return dict(
        zip(names, session.run(names, {i.name: feeds[i.name] for i in session.get_inputs()}), strict=True)
    )


def _next(outputs: State) -> State:
    return {name.removeprefix(NEXT): value for name, value in outputs.items() if name.startswith(NEXT)}


@pytest.mark.parametrize("form", [_train, _grad_and_apply])
@pytest.mark.parametrize("name", CASES)
def test_three_batches_are_one_of_their_size(
    name: str, form: Callable[[Compiled], Callable[[State, Array, Array], State]]
) -> None:
    whole, parts = _compiled(**CASES[name]), _compiled(**CASES[name], accumulate=len(SIZES))
    at_once, one_by_one = form(whole), form(parts)
    expected, state = dict(whole.state), dict(parts.state)
    for images, labels in zip(IMAGES, LABELS, strict=True):
        expected = at_once(expected, images, labels)
        moved = expected.keys() - {"step"}
        for i, size in enumerate(SIZES):
            begin, before = sum(SIZES[:i]), state
            state = one_by_one(state, images[begin : begin + size], labels[begin : begin + size])
            if i < len(SIZES) - 1:
                assert all((state[key] == before[key]).all() for key in moved)
        for key in moved:
            np.testing.assert_allclose(state[key], expected[key], rtol=2e-5, atol=1e-6, err_msg=key)
        assert not any(np.any(state[key]) for key in state.keys() - expected.keys())
    assert (int(expected["step"]), int(state["step"])) == (2, 6)


NORMALISED = nn.Sequential(
    nn.Conv2d(3, 3), nn.BatchNorm2d(momentum=0.6), nn.ReLU(), nn.Flatten(), nn.Dense(4)
)
AVERAGED = ("conv1.weight", "bn1.weight", "bn1.running_mean", "bn1.running_var", "dense1.bias")


def _decay(decay: float, updates: int) -> float:
    """TensorFlow's, where `updates` came before this one."""
    return min(decay, updates / (updates + 9))


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("form", [_train, _grad_and_apply])
@pytest.mark.parametrize("decay", [0.75, 0.1, 0.0])
def test_the_average_is_exponential(
    decay: float, form: Callable[[Compiled], Callable[[State, Array, Array], State]], accumulate: int
) -> None:
    compiled = _compiled(model=NORMALISED, average=decay, accumulate=accumulate)
    step, state = form(compiled), dict(compiled.state)
    averages = {name: state[f"{name}/average"] for name in AVERAGED}
    for name, average in averages.items():
        np.testing.assert_array_equal(average, state[name])
    for t in range(8):
        images, labels = IMAGES[t % 2], LABELS[1]
        state = step(state, images, labels)
        for name in AVERAGED:
            if (t + 1) % accumulate == 0:
                share = 1 - _decay(decay, t // accumulate)
                averages[name] = averages[name] + share * (state[name] - averages[name])
            np.testing.assert_allclose(state[f"{name}/average"], averages[name], rtol=2e-6, atol=1e-7)
    assert decay == 0 or (state["bn1.running_mean/average"] != state["bn1.running_mean"]).any()


def test_what_stays_is_its_own_average() -> None:
    compiled = _compiled(average=0.999, optimizer=optim.SGD(1e-30))
    step, state = _train(compiled), dict(compiled.state)
    for _ in range(30):
        state = step(state, IMAGES[1], LABELS[1])
    np.testing.assert_array_equal(state["dense1.weight/average"], compiled.state["dense1.weight"])


def test_what_is_frozen_has_no_average() -> None:
    model = nn.Sequential(nn.Conv2d(3, 3), nn.BatchNorm2d(), nn.ReLU(), nn.Flatten(), nn.Dense(4))
    fields = {"model": model, "average": 0.9}

    def frozen(network: Network, recipe: Recipe) -> Recipe:
        for name in ("conv1.weight", "bn1.running_mean", "bn1.running_var"):
            network.parameters[name] = replace(network.parameters[name], trainable=False)
        return recipe

    compiled = compile_program(_program(**fields), revise=frozen)
    averaged = {entry.of for entry in compiled.manifest.entries("average")}
    assert averaged == {"conv1.bias", "bn1.weight", "bn1.bias", "dense1.weight", "dense1.bias"}
    inputs = {value.name for value in ort.InferenceSession(compiled.graphs["grad.onnx"]).get_inputs()}
    assert "step" not in inputs  # the statistics rest, so there is nothing to average there


@pytest.mark.oracle
def test_the_average_is_pytorchs() -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is the oracle of the average (extra [oracle])")
    from torch.optim.swa_utils import AveragedModel

    compiled = _compiled(model=NORMALISED, average=0.3)
    step, state = _train(compiled), dict(compiled.state)
    peer = torch.nn.BatchNorm2d(3)

    def follow() -> None:
        with torch.no_grad():
            for name, tensor in {**dict(peer.named_parameters()), **dict(peer.named_buffers())}.items():
                if tensor.ndim:
                    tensor.copy_(torch.tensor(state[f"bn1.{name}"]))

    def mean(average: Any, current: Any, count: Any) -> Any:
        return average + (1 - _decay(0.3, int(count))) * (current - average)

    follow()
    averaged = AveragedModel(peer, avg_fn=mean, use_buffers=True)
    for _ in range(8):
        state = step(state, IMAGES[1], LABELS[1])
        follow()
        averaged.update_parameters(peer)
        for name in ("weight", "bias", "running_mean", "running_var"):
            theirs = getattr(averaged.module, name).detach()
            np.testing.assert_allclose(state[f"bn1.{name}/average"], theirs, rtol=2e-6, atol=1e-7)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    compiled = _compiled(model=NORMALISED, average=0.9, accumulate=2, optimizer=optim.NAdam(0.01))
    return write_bundle(
        tmp_path_factory.mktemp("gathered") / "bundle", compiled.manifest, compiled.graphs, compiled.state
    )


def test_a_run_and_its_average(bundle: Bundle, tmp_path: Path) -> None:
    split = Split(RNG.standard_normal((21, 2, 6, 6)).astype(np.float32), RNG.integers(0, 4, 21))
    data = Dataset("random", split, split)
    settings = Settings(epochs=3, batch_size=4, device="cpu")
    summary = train(bundle, data, settings, tmp_path / "run")
    raw, last = (Trained.open(tmp_path / "run", which).state for which in ("raw", "last"))
    for name in AVERAGED:
        assert (last[name] == raw[f"{name}/average"]).all()
        assert (last[name] != raw[name]).any()
    assert summary.test == pytest.approx(evaluate(bundle, last, split))
    assert summary.test != pytest.approx(evaluate(bundle, raw, split))
    assert export(tmp_path / "run", tmp_path / "last.onnx", which="last", dataset=data).difference < 1e-5
    start, _ = start_from(tmp_path / "run", bundle.manifest, bundle.initial_state())
    best = Trained.open(tmp_path / "run").state
    for name in AVERAGED:
        assert (start[name] == best[name]).all()
        assert (start[f"{name}/average"] == best[name]).all()


def test_a_run_of_averages_goes_on_to_the_same_bits(bundle: Bundle, tmp_path: Path) -> None:
    split = Split(IMAGES.reshape(16, 2, 6, 6), RNG.integers(0, 4, 16))
    data = Dataset("random", split, split)
    for name, epochs in (("whole", 3), ("parts", 1)):
        train(bundle, data, Settings(epochs=epochs, batch_size=5, device="cpu"), tmp_path / name)
    resume(tmp_path / "parts", data, epochs=3)
    whole, parts = (Trained.open(tmp_path / name, "raw").state for name in ("whole", "parts"))
    assert all((whole[name] == parts[name]).all() for name in whole)


def test_every_runtime_agrees(bundle: Bundle) -> None:
    report = verify(bundle)
    assert report.ok, report.record()


def test_another_seed_draws_the_average_too(bundle: Bundle) -> None:
    state = start_state(bundle, 5)
    assert (state["conv1.weight"] != bundle.initial_state()["conv1.weight"]).any()
    assert (state["conv1.weight/average"] == state["conv1.weight"]).all()


def test_without_an_average_raw_is_the_last(tmp_path: Path) -> None:
    compiled = _compiled()
    plain = write_bundle(tmp_path / "bundle", compiled.manifest, compiled.graphs, compiled.state)
    split = Split(IMAGES[1], LABELS[1])
    train(plain, Dataset("random", split, split), Settings(epochs=1, device="cpu"), tmp_path / "run")
    raw, last = (Trained.open(tmp_path / "run", which).state for which in ("raw", "last"))
    assert raw.keys() == last.keys()
    assert all((raw[name] == last[name]).all() for name in raw)


def test_earlier_manifests_are_still_read() -> None:
    manifest = _compiled().manifest
    record = json.loads(manifest.to_json())
    for name in ("accumulate", "average", "sha256"):
        del record[name]
    del record["target"]["ignored"]
    for metric in record["metrics"]:
        for name in ("kind", "source", "label"):
            del metric[name]
    earlier = Manifest.from_json(json.dumps(record))
    assert (earlier.accumulate, earlier.average, earlier.target.ignored) == (1, None, None)
    assert earlier.metrics == manifest.metrics


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"accumulate": 0}, "Program: accumulate must be at least 1, not 0"),
        ({"average": 1.0}, "Program: average must be a number at least 0 and below 1, not 1.0"),
    ],
)
def test_fields_are_checked(changes: dict[str, Any], text: str) -> None:
    with pytest.raises(GraphFileError, match=text):
        _compiled(**changes)
