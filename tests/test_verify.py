"""Parity: every runtime at hand computes the same inference and the same step; one that doesn't is found."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from built import PROGRAMS, build, digits_run

from cnnc.bundle import Array, Bundle, write_bundle
from cnnc.compiler import compile_program
from cnnc.deploy.runtimes import REFERENCE, RUNTIMES, Call, OnnxRuntime, Runtime
from cnnc.deploy.verify import TOLERANCE, VerifyReport, verify
from cnnc.errors import BundleError, ModelError, UsageError
from cnnc.graph_file import load_program

PRESENT = [runtime for runtime in RUNTIMES if not runtime.absence()]
GRAPHS = {"mnist": {}, "digits": {}, "lenet5": {}, "resnet_cifar": {"depth": "8", "width": "4"}}


class Changed(OnnxRuntime):
    """ONNX Runtime whose results a function changes: one that is wrong."""

    def __init__(self, change: Callable[[dict[str, Array]], object]) -> None:
        self.change = change

    def load(self, model: onnx.ModelProto) -> Call:
        call = super().load(model)

        def changed(feeds: Mapping[str, Array]) -> dict[str, Array]:
            results = call(feeds)
            self.change(results)
            return results

        return changed


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return build("branches", tmp_path_factory.mktemp("branches") / "bundle")


def _agree(report: VerifyReport) -> None:
    for runtime in report.runtimes:
        assert not runtime.failure, f"{runtime.name}: {runtime.failure}"
        assert runtime.ok(report.tolerance), f"{runtime.name}: {runtime.largest()}"
    assert report.ok


@pytest.mark.parametrize("graph", GRAPHS)
def test_the_graphs_on_every_runtime(graph: str, tmp_path: Path) -> None:
    compiled = compile_program(load_program(graph, GRAPHS[graph]))
    write_bundle(tmp_path / "bundle", compiled.manifest, compiled.graphs, compiled.state)
    _agree(verify(tmp_path / "bundle", batches=[3]))


@pytest.mark.parametrize("name", PROGRAMS)
def test_networks_and_losses_on_every_runtime(name: str, tmp_path: Path) -> None:
    report = verify(build(name, tmp_path / "bundle"), batches=[1])
    _agree(report)
    manifest = Bundle.open(tmp_path / "bundle").manifest
    step = {"loss", *(f"next/{entry.name}" for entry in manifest.state)}
    step |= {f"metrics/{metric.name}/{part}" for metric in manifest.metrics for part in ("sum", "count")}
    compared = {f"{form}/{name}" for form in ("train", "split") for name in step}
    for runtime in report.runtimes:
        assert runtime.differences.keys() == {f"infer/{manifest.output.name}", *compared}
    assert {r.name for r in report.runtimes} | report.absent.keys() == {r.name for r in RUNTIMES}


def test_a_run_is_verified_with_its_last_state(tmp_path: Path) -> None:
    run = digits_run(tmp_path)
    steps = []
    note = Changed(lambda results: steps.append(results.get("next/step")))
    _agree(verify(run, runtimes=[note, REFERENCE], batches=[2]))
    assert {int(step) for step in steps if step is not None} == {91}, "one after two epochs of 45 steps"


def test_the_report_as_json(bundle: Bundle) -> None:
    begun: list[str] = []
    report = verify(bundle, runtimes=[REFERENCE], batches=[1, 2], progress=begun.append)
    record = json.loads(json.dumps(report.record()))
    assert begun == ["ONNX Runtime"]
    assert (record["ok"], record["batches"], record["tolerance"]) == (True, [1, 2], TOLERANCE)
    (runtime,) = record["runtimes"]
    assert (runtime["ok"], runtime["outputs"], runtime["loss"], runtime["state"]) == (True, 0.0, 0.0, 0.0)
    assert runtime["split_step"] < 1e-5


def _scale(name: str, factor: float) -> Callable[[dict[str, Array]], object]:
    def change(results: dict[str, Array]) -> None:
        if name in results:
            results[name] = (results[name] * factor).astype(results[name].dtype)

    return change


def _replace(name: str, value: Callable[[Array], Array]) -> Callable[[dict[str, Array]], object]:
    return lambda results: results.update({name: value(results[name])} if name in results else {})


@pytest.mark.parametrize(
    ("change", "where"),
    [
        (_scale("probabilities", 1.001), "infer/probabilities"),
        (_scale("loss", 1.001), "train/loss"),
        (_scale("next/conv2.weight", 1.001), "train/next/conv2.weight"),
        (_scale("next/dense1.bias/exp_avg", 1.001), "train/next/dense1.bias/exp_avg"),
        (_scale("next/bn1.running_var", 0.999), "train/next/bn1.running_var"),
        (_replace("gradient", lambda a: a + np.abs(a).max() / 50), "split/next/"),
        (_replace("next/step", lambda a: a + 1), "train/next/step"),
        (_replace("next/conv2.weight", lambda a: a.astype(np.float64)), "train/next/conv2.weight"),
        (_replace("loss", lambda a: a[None]), "train/loss"),
        (_replace("metrics/accuracy/sum", lambda a: a + 1), "train/metrics/accuracy/sum"),
        (_replace("next/conv1.weight", lambda a: a * np.float32("nan")), "train/next/conv1.weight"),
    ],
)
def test_a_runtime_that_is_wrong_is_found(bundle: Bundle, change: Callable[..., object], where: str) -> None:
    report = verify(bundle, runtimes=[Changed(change)], batches=[2])
    assert not report.ok
    name, difference = report.runtimes[0].largest(where)
    assert name.startswith(where)
    assert difference > TOLERANCE
    json.dumps(report.record(), allow_nan=False)


def test_the_two_forms_of_the_step_are_compared(bundle: Bundle, tmp_path: Path) -> None:
    """A bundle whose apply.onnx takes a step of another length, which the reference itself shows."""
    model = onnx.load(bundle.graph("apply.onnx"))
    rates = [node for node in model.graph.node if node.name == "update/learning_rate"]
    rates[0].input[0] = rates[0].input[1]
    graphs = {
        name: bundle.graph(name).read_bytes() for name in bundle.manifest.files if name.endswith(".onnx")
    }
    graphs["apply.onnx"] = model.SerializeToString()
    other = write_bundle(tmp_path / "other", bundle.manifest, graphs, bundle.initial_state())
    report = verify(other, runtimes=[REFERENCE], batches=[2])
    assert not report.ok
    assert report.runtimes[0].largest()[0].startswith("split/next/")
    assert report.runtimes[0].largest("train/")[1] == 0.0


def test_noise_before_normalisation_is_no_difference(bundle: Bundle) -> None:
    """A bias before normalisation has a gradient of nothing but rounding, and another rounding is as good."""

    def round_anew(results: dict[str, Array]) -> None:
        if "next/conv1.bias/exp_avg" in results:
            results["next/conv1.bias/exp_avg"] *= np.float32(1.5)

    report = verify(bundle, runtimes=[Changed(round_anew)], batches=[4])
    assert report.ok
    assert report.runtimes[0].largest()[1] > 0


class Broken(Runtime):
    name, package = "broken", "onnx"

    def load(self, model: onnx.ModelProto) -> Call:
        raise RuntimeError(f"no kernel\nfor {model.graph.node[0].op_type}\n\nStack backtrace:\n 0: main")


class Missing(Runtime):
    name, package = "missing", "nothing_here"

    def load(self, model: onnx.ModelProto) -> Call:
        raise AssertionError("nobody asked whether it is here")


def test_failures_and_absences_are_reported(bundle: Bundle) -> None:
    report = verify(bundle, runtimes=[Missing()], batches=[1])
    assert report.ok
    assert report.absent == {
        "missing": "No module named 'nothing_here'; `pip install nothing_here` brings it."
    }
    report = verify(bundle, runtimes=[Missing(), Broken(), REFERENCE], batches=[1])
    assert not report.ok
    assert [runtime.ok(TOLERANCE) for runtime in report.runtimes] == [False, True]
    assert report.runtimes[0].failure.startswith("no kernel for ")
    assert "backtrace" not in report.runtimes[0].failure


def test_what_can_not_be_verified(bundle: Bundle, tmp_path: Path) -> None:
    for batches in ([], [0], [4, -1]):
        with pytest.raises(UsageError, match="each must be at least 1"):
            verify(bundle, batches=batches)
    copy = tmp_path / "copy"
    shutil.copytree(bundle.path, copy)
    (copy / "grad.onnx").write_bytes(b"no model")
    with pytest.raises(BundleError, match="truncated or altered"):
        verify(copy)
    free = replace(bundle.manifest, input=replace(bundle.manifest.input, shape=("N", 3, "H", "W")))
    with pytest.raises(ModelError, match=r"sizes that nothing fixes \(H, W\)"):
        verify(Bundle(bundle.path, free))
