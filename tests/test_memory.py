"""Steps within a memory limit: the same numbers, what they take, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from command_line import SMALL, call, done
from foreign_models import model, save, weight
from onnx import helper
from onnx.reference import ReferenceEvaluator

from cnnc import Program, Tensor, losses, metrics, nn, optim
from cnnc.build import build
from cnnc.bundle import Array, Bundle, write_bundle
from cnnc.compiler import Compiled, compile_program, compile_training, recipe_of
from cnnc.errors import UnsupportedError
from cnnc.memory import MemoryLimit, Saving, estimate
from cnnc.profiling import Subject, bench
from cnnc.program import Model
from cnnc.step import Training


def plain(width: int = 6, size: int = 12, **more: Any) -> Program:
    model = nn.Sequential(nn.Conv2d(width, 3, activation="relu"), nn.MaxPool2d(2), nn.Flatten(), nn.Dense(4))
    return _program(model, size, **more)


def normalised(width: int = 6, size: int = 12) -> Program:
    """Three residual blocks with batch normalisation."""

    def model(x: nn.Value) -> nn.Value:
        x = nn.Conv2d(width, 1)(x)
        for _ in range(3):
            y = nn.ReLU()(nn.BatchNorm2d()(nn.Conv2d(width, 1)(x)))
            y = nn.ReLU()(nn.BatchNorm2d()(nn.Conv2d(width, 3, padding="same", groups=width)(y)))
            x = nn.ReLU()(x + nn.BatchNorm2d()(nn.Conv2d(width, 1)(y)))
        return nn.Dense(4)(nn.GlobalAvgPool2d()(x))

    return _program(model, size)


def _program(model: Model, size: int, **more: Any) -> Program:
    arguments: dict[str, Any] = {
        "loss": losses.SoftmaxCrossEntropy(class_weights=(1.0, 2.0, 0.5, 3.0), ignore_index=3),
        "optimizer": optim.SGD(0.1, momentum=0.9),
        "metrics": [metrics.Accuracy()],
    }
    return Program(input=Tensor("image", ("N", 3, size, size)), model=model, **(arguments | more))


def saved(program: Program, saving: Saving) -> Compiled:
    """The program compiled with `saving`, whatever it takes."""
    return compile_training(Training(program.trace(ir.DataType.FLOAT), recipe_of(program)), saving)


def feeds(compiled: Compiled, batch: int) -> dict[str, Array]:
    random = np.random.default_rng(3)
    manifest = compiled.manifest
    shape = [int(d) for d in manifest.input.shape[1:]]
    scalars = {"lr_scale": np.float32(1.0)}
    return {
        **compiled.state,
        **{name: np.array(value) for name, value in scalars.items()},
        "image": random.standard_normal((batch, *shape), np.float32),
        "label": random.integers(0, 4, batch),
    }


def outputs(graph: bytes, given: dict[str, Array]) -> dict[str, Array]:
    session = ort.InferenceSession(graph, providers=["CPUExecutionProvider"])
    wanted = {value.name: given[value.name] for value in session.get_inputs()}
    names = [value.name for value in session.get_outputs()]
    return dict(zip(names, session.run(None, wanted), strict=True))


def assert_same(one: dict[str, Array], other: dict[str, Array], tolerance: float = 2e-6) -> None:
    assert one.keys() == other.keys()
    for name, value in one.items():
        np.testing.assert_allclose(other[name], value, rtol=tolerance, atol=tolerance, err_msg=name)


@pytest.mark.parametrize("batch", [1, 2, 3, 7, 8])
def test_a_batch_in_chunks_gives_the_same_step_and_gradient(batch: int) -> None:
    whole, chunked = compile_program(plain()), saved(plain(), Saving(chunks=3))
    given = feeds(whole, batch)
    assert any(
        node.op_type == "Loop" for node in onnx.load_from_string(chunked.graphs["train.onnx"]).graph.node
    )
    for name in ("train.onnx", "grad.onnx"):
        assert_same(outputs(whole.graphs[name], given), outputs(chunked.graphs[name], given))


def test_labels_that_do_not_count_weigh_nothing_in_any_chunk() -> None:
    whole, chunked = compile_program(plain()), saved(plain(), Saving(chunks=2))
    given = feeds(whole, 6) | {"label": np.array([3, 3, 3, 0, 1, 3])}  # the first chunk counts nothing
    assert_same(outputs(whole.graphs["train.onnx"], given), outputs(chunked.graphs["train.onnx"], given))


def test_chunks_run_on_another_runtime() -> None:
    chunked = saved(plain(4, 8), Saving(chunks=2))
    given = feeds(chunked, 4)
    model = onnx.inliner.inline_local_functions(onnx.load_from_string(chunked.graphs["train.onnx"]))
    names = [value.name for value in model.graph.output]
    wanted = {value.name: given[value.name] for value in model.graph.input}
    found = dict(zip(names, ReferenceEvaluator(model).run(None, wanted), strict=True))
    assert_same(outputs(chunked.graphs["train.onnx"], given), found, 1e-5)


def test_recomputed_activations_give_the_same_bits_and_take_less() -> None:
    program = normalised(16, 24)
    whole, leaner = compile_program(program), saved(program, Saving(recompute=True))
    assert {"relu1", "relu2"} <= set(leaner.recomputed)
    given = feeds(whole, 5)
    assert_same(outputs(whole.graphs["train.onnx"], given), outputs(leaner.graphs["train.onnx"], given), 1e-6)
    needs = [estimate(c.graphs["train.onnx"], c.graphs["eval.onnx"], 64).values for c in (whole, leaner)]
    assert needs[1] < 0.9 * needs[0]
    peaks = [_arena_peak(compiled.graphs["train.onnx"], feeds(compiled, 64)) for compiled in (whole, leaner)]
    assert peaks[1] < 0.95 * peaks[0]  # ONNX Runtime has not merged the copies with the originals


def _arena_peak(graph: bytes, given: dict[str, Array]) -> int:
    """The most bytes that ONNX Runtime's buffers held at once in a step."""
    options = ort.SessionOptions()
    options.enable_profiling, options.enable_mem_pattern = True, False
    session = ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    session.run(None, {value.name: given[value.name] for value in session.get_inputs()})
    path = Path(session.end_profiling())
    events = json.loads(path.read_text())
    path.unlink()
    return max(
        int(e["args"]["mem_bytes_requested_in_use"]) for e in events if e["cat"] == "Node" and e["dur"]
    )


def test_no_more_is_saved_than_is_needed() -> None:
    roomy = compile_program(normalised(), memory=MemoryLimit(10**9, 8)).manifest.memory
    assert roomy is not None
    assert (roomy.recomputed, roomy.chunks) == (0, 1)
    assert roomy.estimate < 10**9
    needed = compile_program(plain(16, 64), memory=MemoryLimit(10**9, 256)).manifest.memory
    assert needed is not None
    less = compile_program(plain(16, 64), memory=MemoryLimit(needed.estimate - 10**7, 256)).manifest.memory
    assert less is not None
    assert less.chunks > 1
    assert less.estimate <= needed.estimate - 10**7


def test_every_target_of_a_batch_is_counted_with_the_images() -> None:
    def model(x: nn.Value) -> dict[str, nn.Value]:
        x = nn.Conv2d(4, 1, activation="relu")(x)
        return {"one": nn.Conv2d(3, 1)(x), "two": nn.Conv2d(3, 1)(x)}

    loss = {name: losses.MeanSquaredError() for name in ("one", "two")}
    compiled = compile_program(_program(model, 32, loss=loss, metrics=[]))
    found = estimate(compiled.graphs["train.onnx"], compiled.graphs["eval.onnx"], 16)
    assert found.state < 10_000
    assert found.batch == 3 * 16 * 3 * (3 * 32 * 32) * 4


@pytest.mark.usefixtures("in_process")
def test_a_network_of_one_batch_size_takes_what_its_batch_takes(tmp_path: Path) -> None:
    """A softmax along the batch keeps it at 4: no size of it is taken for another."""
    nodes = [
        helper.make_node("Conv", ["x", "conv"], ["c"], pads=[1] * 4),
        helper.make_node("Flatten", ["c"], ["f"]),
        helper.make_node("Softmax", ["f"], ["s"], axis=0),
        helper.make_node("Gemm", ["s", "last"], ["y"]),
    ]
    path = save(
        model([*nodes], [weight("conv", 4, 3, 3, 3), weight("last", 256, 5)], shape=(4, 3, 8, 8)),
        tmp_path / "m.onnx",
    )
    build(str(path), tmp_path / "b", memory_limit=10**9, batch_size=64)
    bundle = Bundle.open(tmp_path / "b")
    assert bundle.manifest.input.shape[0] == 4
    train, evaluation = (bundle.graph(name).read_bytes() for name in ("train.onnx", "eval.onnx"))
    found = estimate(train, evaluation, 64)
    assert found.values < 10**6
    with pytest.raises(UnsupportedError, match="because its batches are of one size"):
        build(str(path), tmp_path / "c", memory_limit=1000)


@pytest.mark.parametrize(
    ("program", "words"),
    [
        (normalised(), "batch normalisation ('bn1') takes its statistics over a whole batch"),
        (_program(nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Dense(4)), 12), "random numbers are drawn"),
        (plain(), "do with is about 15"),
    ],
)
def test_what_cannot_fit_is_refused(program: Program, words: str) -> None:
    with pytest.raises(UnsupportedError, match="does not fit into 150 MB at batch size 64") as refused:
        compile_program(program, memory=MemoryLimit(150_000_000, 64))
    assert words in str(refused.value)


@pytest.mark.slow
@pytest.mark.parametrize("build", [plain, normalised])
def test_the_process_stays_within_the_limit(build: type, tmp_path: Path) -> None:
    program = build(32, 48)
    free = compile_program(program, memory=MemoryLimit(10**10, 128)).manifest.memory
    assert free is not None
    limit = int(free.estimate * 0.93)
    compiled = compile_program(program, memory=MemoryLimit(limit, 128))
    bundle = write_bundle(tmp_path / "bundle", compiled.manifest, compiled.graphs, compiled.state)
    report = bench(Subject.of_bundle(bundle, batch=128), steps=3, profile=False)
    assert report.peak_memory < limit


def test_command_line(tmp_path: Path) -> None:
    (tmp_path / "small.py").write_text(SMALL)
    bundle, run = tmp_path / "small.bundle", tmp_path / "run"
    result = done(
        "build", tmp_path / "small.py", "-o", bundle, "--memory-limit", "150.5MB", "--batch-size", 256
    )
    assert "at batch size 256" in result.err
    assert "chunks" in result.err
    layers = [layer["name"] for layer in json.loads(done("summary", bundle, "--json").out)["layers"]]
    assert layers == ["conv1", "flatten1", "dense1"]
    profile = json.loads(done("bench", bundle, "--steps", 2, "--batch-size", 16, "--json").out)["profile"]
    assert profile["unassigned"] == 0.0
    assert [row["layer"] for row in profile["rows"]][:3] == layers
    late = call("train", bundle, "--memory-limit", "1GB")
    assert (late.status, "comes too late" in late.err) == (2, True)
    wrong = call("build", "digits", "--memory-limit", "much", "-o", tmp_path / "no")
    assert (wrong.status, "such as 2GB" in wrong.err) == (2, True)
    small = call("build", "digits", "--memory-limit", "10MB", "-o", tmp_path / "no")
    assert (small.status, "does not fit into 10 MB" in small.err) == (1, True)
    assert not (tmp_path / "no").exists()
    trained = done(
        "train", tmp_path / "small.py", "--data", "digits", "--epochs", 1, "--memory-limit", "1GB", "-o", run
    )
    assert "the step needs no saving" in trained.err
