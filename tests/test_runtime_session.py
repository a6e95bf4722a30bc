"""The sessions: state that goes round, scalars, short batches, errors in the user's words."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx.reference import ReferenceEvaluator
from tiny_bundle import MANIFEST, initial_state, write_tiny_bundle

from cnnc.bundle import NEXT, Bundle, FunctionSpec
from cnnc.errors import BundleError, ModelError
from cnnc.runtime import EvalSession, InferSession, StepSession
from cnnc.runtime.provenance import explain
from cnnc.runtime.session.evaluation import MANY


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return write_tiny_bundle(tmp_path_factory.mktemp("session") / "tiny")


def batch(size: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    return random.random((size, 1, 8, 8), dtype=np.float32), random.integers(0, 10, size)


def test_steps_follow_the_reference_runtime_through_a_short_batch(bundle: Bundle) -> None:
    scalars = {"lr_scale": 0.5, "seed": 3}
    session = StepSession(bundle, "cpu", 1, scalars=scalars)
    train = onnx.load(bundle.graph("train.onnx"))
    reference, names = ReferenceEvaluator(train), [value.name for value in train.graph.output]
    state = initial_state()
    for number, size in enumerate((32, 32, 5, 32, 1)):
        images, labels = batch(size, number)
        loss, sums = session.step(images, labels)
        feeds = {"image": images, "label": labels, "lr_scale": np.float32(0.5), "seed": np.int64(3)}
        outputs = dict(zip(names, reference.run(None, feeds | state), strict=True))
        state = {name: outputs[NEXT + name] for name in state}
        assert loss == pytest.approx(float(outputs["loss"]), rel=1e-5)
        assert sums["accuracy"] == (outputs["metrics/accuracy/sum"], size)
        assert sums["loss"] == (pytest.approx(float(outputs["metrics/loss/sum"]), rel=1e-5), size)
        for name, array in session.state().items():
            np.testing.assert_allclose(array, state[name], rtol=1e-4, atol=1e-6, err_msg=name)
    assert session.state()["step"] == 5


def test_state_is_a_copy_and_loading_it_repeats_the_steps_bit_for_bit(bundle: Bundle) -> None:
    session = StepSession(bundle, "cpu", 1)
    session.step(*batch(8))
    before = session.state()
    kept = {name: array.copy() for name, array in before.items()}
    after = [session.step(*batch(8, seed)) for seed in range(3)]
    for name, array in before.items():
        np.testing.assert_array_equal(array, kept[name])
    session.load_state(before)
    assert [session.step(*batch(8, seed)) for seed in range(3)] == after


def test_a_failed_step_leaves_the_state_and_names_the_users_line(bundle: Bundle) -> None:
    session = StepSession(bundle, "cpu", 1)
    images, labels = batch(4)
    before = session.state()
    with pytest.raises(ModelError, match=r"^tiny.py:9: .* GatherElements node 'loss' .*[Oo]ut of range"):
        session.step(images, labels + 100)
    with pytest.raises(ModelError, match=r"Got: 7 Expected: 8"):
        session.step(np.ascontiguousarray(images[..., :7]), labels)
    with pytest.raises(ModelError, match=r"tensor\(double\).*tensor\(float\)"):
        session.step(images.astype(np.float64), labels)
    for name, array in session.state().items():
        np.testing.assert_array_equal(array, before[name])
    assert np.isfinite(session.step(images, labels)[0])


@pytest.mark.parametrize(
    ("node", "told"),
    [
        (
            "Grad_2_shift",
            "tiny.py:3: {} Sub node 'grad/dense/weight' of train.onnx, which belongs to 'dense': {}",
        ),
        ("Grad_shift", "{} a node of type Sub of train.onnx, one of grad/dense/bias, grad/other/bias: {}"),
    ],
)
def test_an_inlined_node_is_told_as_the_nodes_that_call_its_function(
    bundle: Bundle, node: str, told: str
) -> None:
    functions = (
        FunctionSpec("grad/dense/bias", "Grad", "direct", "Grad"),
        FunctionSpec("grad/dense/weight", "Grad", "direct", "Grad_2"),
        FunctionSpec("grad/other/bias", "Grad", "direct", "Grad"),
    )
    calling = Bundle(bundle.path, replace(bundle.manifest, functions=functions))
    error = RuntimeError(
        "[ONNXRuntimeError] : 1 : FAIL : Non-zero status code returned while running Sub node. "
        f"Name:'_inlfunc_{node}' Status Message: /ort/b.h:58 void ort::F(long, T*) 5 by 32\n"
    )
    expected = told.format("ONNX Runtime failed at", "5 by 32")
    assert str(explain(error, calling, "train.onnx")) == expected


def test_evaluation_reads_arrays_or_the_step_sessions_own_buffers(bundle: Bundle) -> None:
    step, evaluation = StepSession(bundle, "cpu", 1), EvalSession(bundle, "cpu", 1)
    images, labels = batch(50)
    step.step(images, labels)
    evaluation.use(step.values)
    shared = evaluation.sums(images, labels)
    step.step(images, labels)
    evaluation.use(step.values)
    assert evaluation.sums(images, labels) != shared
    evaluation.use(step.state())
    copied = evaluation.sums(images, labels)
    evaluation.use(step.values)
    assert evaluation.sums(images, labels) == copied
    assert copied["accuracy"][1] == copied["loss"][1] == 50


def test_evaluation_of_many_batches_has_the_state_in_its_graph_and_gives_the_same(bundle: Bundle) -> None:
    step, evaluation = StepSession(bundle, "cpu", 1), EvalSession(bundle, "cpu", 1)
    images, labels = batch(50)
    found = []
    for _ in range(2):
        step.step(images, labels)
        for state, batches in ((step.values, MANY), (step.values, MANY - 1), (step.state(), MANY)):
            evaluation.use(state, batches=batches)
            found.append({name: total for name, (total, _) in evaluation.sums(images, labels).items()})
        assert found[-1] == found[-3]
        assert found[-2] == pytest.approx(found[-1], rel=1e-5)
    assert found[0] != found[3]
    assert evaluation.sums(*batch(7))["loss"][1] == 7


def test_inference_gives_probabilities_for_any_batch(bundle: Bundle) -> None:
    infer = InferSession(bundle.graph("infer.onnx"), "cpu", 1)
    for size in (1, 7):
        probability = infer(batch(size)[0])
        assert probability.shape == (size, 10)
        np.testing.assert_allclose(probability.sum(axis=1), 1, rtol=1e-6)
    with pytest.raises(ModelError, match="Got: 3"):
        infer(np.zeros((1, 3, 8, 8), np.float32))


@pytest.mark.parametrize("name", ["dense.bias", "step"])
def test_a_state_of_another_shape_is_refused(bundle: Bundle, name: str) -> None:
    session = StepSession(bundle, "cpu", 1)
    with pytest.raises(BundleError, match=f"state '{name}'"):
        session.load_state(session.state() | {name: np.zeros((3,), np.float32)})


def test_a_manifest_of_another_graph_is_refused(tmp_path: Path) -> None:
    bundle = write_tiny_bundle(tmp_path / "tiny", scalars={"lr_scale": 1.0, "temperature": 2.0})
    with pytest.raises(BundleError, match="not the manifest's: seed, temperature"):
        StepSession(bundle, "cpu", 1)


def test_a_graph_that_is_no_onnx_is_told_by_its_path(tmp_path: Path) -> None:
    (tmp_path / "infer.onnx").write_bytes(b"not a model")
    with pytest.raises(BundleError, match=r"infer\.onnx: ONNX Runtime can't load the graph"):
        InferSession(tmp_path / "infer.onnx", "cpu", 1)


def test_the_tiny_bundle_says_what_its_manifest_says(bundle: Bundle) -> None:
    assert bundle.initial_state().keys() == {entry.name for entry in MANIFEST.state}
    assert bundle.manifest.gradient_size == 650
