"""Gradients gathered over batches, and the moving average of the parameters: in both forms of the step."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest

from cnnc import Program, Tensor, losses, nn, optim, schedules
from cnnc.bundle import NEXT, Bundle, Manifest, write_bundle
from cnnc.compiler import Compiled, compile_program
from cnnc.data import Dataset, Split
from cnnc.deploy.export import export
from cnnc.deploy.trained import Trained
from cnnc.deploy.verify import verify
from cnnc.errors import GraphFileError, RunError
from cnnc.runtime import Settings, evaluate, train
from cnnc.runtime.trainer import start_state

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
}


def _compiled(**changes: Any) -> Compiled:
    fields: dict[str, Any] = {
        "input": Tensor("image", ("N", 2, 6, 6)),
        "model": nn.Sequential(nn.Conv2d(3, 3, activation="relu"), nn.Flatten(), nn.Dense(4)),
        "loss": losses.SoftmaxCrossEntropy(ignore_index=9),
        "optimizer": optim.SGD(0.1),
        "name": "gathered",
    }
    return compile_program(Program(**{**fields, **changes}))


def _train(compiled: Compiled) -> Callable[[State, Any, Any], State]:
    session = ort.InferenceSession(compiled.graphs["train.onnx"])
    return lambda state, images, labels: _next(_run(session, _feeds(state, images, labels)))


def _grad_and_apply(compiled: Compiled) -> Callable[[State, Any, Any], State]:
    grad, apply = (ort.InferenceSession(compiled.graphs[f"{n}.onnx"]) for n in ("grad", "apply"))

    def step(state: State, images: Any, labels: Any) -> State:
        feeds = _feeds(state, images, labels)
        first = _run(grad, feeds)
        return _next(first) | _next(_run(apply, feeds | first))

    return step


def _feeds(state: State, images: Any, labels: Any) -> State:
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
    name: str, form: Callable[[Compiled], Callable[[State, Any, Any], State]]
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
    assert (expected["step"], state["step"]) == (2, 6)


@pytest.mark.parametrize("form", [_train, _grad_and_apply])
def test_the_average_is_exponential(form: Callable[[Compiled], Callable[[State, Any, Any], State]]) -> None:
    compiled = _compiled(average=0.75)
    step, state = form(compiled), dict(compiled.state)
    np.testing.assert_array_equal(state["dense1.weight/average"], state["dense1.weight"])
    average = None
    for _ in range(4):
        state = step(state, IMAGES[1], LABELS[1])
        parameter = state["dense1.weight"]
        average = parameter if average is None else 0.75 * average + 0.25 * parameter
        np.testing.assert_allclose(state["dense1.weight/average"], average, rtol=1e-6, atol=1e-7)


@pytest.mark.oracle
def test_the_average_is_pytorchs() -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is the oracle of the average (extra [oracle])")
    from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

    compiled = _compiled(average=0.9)
    step, state = _train(compiled), dict(compiled.state)
    peer = torch.nn.ParameterList([torch.tensor(state["dense1.weight"])])
    averaged = AveragedModel(peer, multi_avg_fn=get_ema_multi_avg_fn(0.9))
    for _ in range(5):
        state = step(state, IMAGES[1], LABELS[1])
        with torch.no_grad():
            peer[0].copy_(torch.tensor(state["dense1.weight"]))
        averaged.update_parameters(peer)
        theirs = averaged.module[0].detach()
        np.testing.assert_allclose(state["dense1.weight/average"], theirs, rtol=1e-6, atol=1e-7)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    compiled = _compiled(average=0.9, accumulate=2, optimizer=optim.NAdam(0.01))
    return write_bundle(
        tmp_path_factory.mktemp("gathered") / "bundle", compiled.manifest, compiled.graphs, compiled.state
    )


def test_a_run_and_its_average(bundle: Bundle, tmp_path: Path) -> None:
    split = Split(RNG.standard_normal((21, 2, 6, 6)).astype(np.float32), RNG.integers(0, 4, 21))
    data = Dataset("random", split, split)
    train(bundle, data, Settings(epochs=3, batch_size=4, device="cpu"), tmp_path / "run")
    last, average = (Trained.open(tmp_path / "run", which).state for which in ("last", "average"))
    assert (average["dense1.weight"] == last["dense1.weight/average"]).all()
    assert (average["dense1.weight"] != last["dense1.weight"]).any()
    assert evaluate(bundle, average, split) != evaluate(bundle, last, split)
    assert (
        export(tmp_path / "run", tmp_path / "average.onnx", which="average", dataset=data).difference < 1e-5
    )


def test_every_runtime_agrees(bundle: Bundle) -> None:
    report = verify(bundle)
    assert report.ok, report.record()


def test_another_seed_draws_the_average_too(bundle: Bundle) -> None:
    state = start_state(bundle, 5)
    assert (state["conv1.weight"] != bundle.initial_state()["conv1.weight"]).any()
    assert (state["conv1.weight/average"] == state["conv1.weight"]).all()


def test_no_average_was_asked_for(tmp_path: Path) -> None:
    compiled = _compiled()
    plain = write_bundle(tmp_path / "bundle", compiled.manifest, compiled.graphs, compiled.state)
    split = Split(IMAGES[1], LABELS[1])
    train(plain, Dataset("random", split, split), Settings(epochs=1, device="cpu"), tmp_path / "run")
    with pytest.raises(RunError, match="keeps no average"):
        Trained.open(tmp_path / "run", "average")


def test_earlier_manifests_are_still_read() -> None:
    manifest = _compiled().manifest
    record = json.loads(manifest.to_json())
    for name in ("accumulate", "average"):
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
