"""Scripts for onnxruntime-training: the same results after their imports changed, and clear refusals."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from cnnc.errors import (
    BundleError,
    CnncError,
    DataError,
    ModelError,
    ProviderError,
    RunError,
    UnsupportedError,
    UsageError,
)
from cnnc.ort_training.api import CheckpointState, LinearLRScheduler, Module, Optimizer
from cnnc.ort_training.artifacts import LossType, OptimType, generate_artifacts

HERE = Path(__file__).parent / "ort_training"
RECORDED = json.loads((HERE / "recorded.json").read_text())
LIST = {"names", "parameters", "sizes"}


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> ModuleType:
    """The script for onnxruntime-training, with nothing but its imports changed."""
    source = (HERE / "train.py").read_text()
    before, after = "\nfrom onnxruntime.training", "\nfrom cnnc.ort_training"
    assert source.count(before) == source.count("\nfrom onnxruntime") == 2
    path = tmp_path_factory.mktemp("script") / "train_with_cnnc.py"
    path.write_text(source.replace(before, after))
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("case", [case for case in RECORDED if case != "scheduler"])
def test_a_script_gives_what_onnxruntime_training_gave(script: ModuleType, case: str, tmp_path: Path) -> None:
    ours = json.loads(json.dumps(script.main(case, tmp_path)))
    theirs = RECORDED[case]
    assert {name: ours[name] for name in LIST} == {name: theirs[name] for name in LIST}
    assert len(theirs["losses"]) == 20
    assert theirs["losses"][0] != theirs["losses"][-2]
    for name in theirs.keys() - LIST:
        np.testing.assert_allclose(ours[name], theirs[name], rtol=1e-5, atol=1e-5, err_msg=name)
    if case == "batch_norm":
        return
    exported = ort.InferenceSession(tmp_path / "inference.onnx")
    (outputs,) = exported.run(None, {"image": np.ones((3, 1, 6, 6), np.float32)})
    assert [value.name for value in exported.get_outputs()] == ["output"]
    assert outputs.shape == (3, 3)


def test_the_page_on_migrating_is_true(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = (HERE.parents[1] / "docs" / "migrating.md").read_text()
    code = page.partition("```python\n")[2].partition("```")[0]
    monkeypatch.chdir(tmp_path)
    onnx.save(script.forward_model(np.random.default_rng(0), {}), "forward.onnx")
    images, labels = np.ones((2, 1, 6, 6), np.float32), np.array([0, 2])
    exec(compile(code, "migrating.md", "exec"), {"batches": [(images, labels)] * 3})
    assert Path("inference.onnx").exists()
    assert Path("artifacts", "later").exists()


def forward_model(dropout: bool = False, name: str = "output") -> onnx.ModelProto:
    """[N, 4] → dense → (dropout) → dense → [N, 3]."""
    rng = np.random.default_rng(0)
    weights = {
        "fc1.weight": rng.standard_normal((4, 8)),
        "fc1.bias": np.zeros(8),
        "fc2.weight": rng.standard_normal((8, 3)),
    }
    nodes = [helper.make_node("Gemm", ["x", "fc1.weight", "fc1.bias"], ["hidden"])]
    if dropout:
        nodes.append(helper.make_node("Dropout", ["hidden", "ratio", "training"], ["dropped"]))
    nodes.append(helper.make_node("MatMul", ["dropped" if dropout else "hidden", "fc2.weight"], [name]))
    tensors = [numpy_helper.from_array(array.astype(np.float32), key) for key, array in weights.items()]
    tensors += [
        numpy_helper.from_array(np.array(0.5, np.float32), "ratio"),
        numpy_helper.from_array(np.array(True), "training"),
    ]
    graph = helper.make_graph(
        nodes,
        "network",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 4])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 3])],
        tensors[: 5 if dropout else 3],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


ARGUMENTS: dict[str, Any] = {
    "requires_grad": ["fc1.weight", "fc1.bias"],
    "frozen_params": ["fc2.weight"],
    "loss": LossType.CrossEntropyLoss,
    "optimizer": OptimType.AdamW,
    "additional_output_names": ["output"],
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("artifacts")
    generate_artifacts(forward_model(), artifact_directory=path, **ARGUMENTS)
    return path


def begin(folder: Path, evaluation: bool = True) -> tuple[CheckpointState, Module, Optimizer]:
    state = CheckpointState.load_checkpoint(folder / "checkpoint")
    module = Module(folder / "training_model.onnx", state, folder / "eval_model.onnx" if evaluation else None)
    return state, module, Optimizer(folder / "optimizer_model.onnx", module)


RNG = np.random.default_rng(1)
X, Y = RNG.standard_normal((6, 4)).astype(np.float32), RNG.integers(0, 3, 6)


def test_the_scheduler_is_the_documented_one(folder: Path) -> None:
    """1.19.2 exchanges the two counts; it was recorded with the counts exchanged, to undo that."""
    wanted = RECORDED["scheduler"]
    _, module, optimizer = begin(folder)
    scheduler = LinearLRScheduler(optimizer, wanted["warmup"], wanted["total"], wanted["rate"])
    rates = [optimizer.get_learning_rate()]
    for _ in wanted["rates"][1:]:
        module(X, Y)
        optimizer.step()
        scheduler.step()
        rates.append(optimizer.get_learning_rate())
    np.testing.assert_allclose(rates, wanted["rates"], atol=1e-7)
    with pytest.raises(UsageError, match="does not fit"):
        LinearLRScheduler(optimizer, 8, 3, 0.1)


def test_gradients_add_up_until_they_are_reset(folder: Path) -> None:
    state, module, optimizer = begin(folder)
    bias = state.parameters["fc1.bias"]

    def gradient() -> np.ndarray:
        assert bias.grad is not None
        return bias.grad

    assert not np.any(gradient())
    module(X, Y)
    first = gradient()
    module(X, Y)
    np.testing.assert_allclose(gradient(), 2 * first, rtol=1e-6)
    module.eval()(X, Y)
    optimizer.step()
    np.testing.assert_allclose(gradient(), 2 * first, rtol=1e-6)
    module.train().lazy_reset_grad()
    np.testing.assert_allclose(gradient(), 2 * first, rtol=1e-6)
    module(X, Y)
    assert np.abs(gradient()).max() < 1.5 * np.abs(first).max()
    assert state.parameters["fc2.weight"].grad is None


def test_only_what_requires_a_gradient_moves(folder: Path) -> None:
    state, module, optimizer = begin(folder)
    before = {name: parameter.data for name, parameter in state.parameters}
    module(X, Y)
    optimizer.step()
    moved = {name for name, parameter in state.parameters if np.any(parameter.data != before[name])}
    assert moved == {"fc1.weight", "fc1.bias"}
    assert not any("fc2" in value.name for value in optimizer._graph.inputs.values())


def test_a_checkpoint_with_the_optimizer_goes_on_bit_for_bit_and_without_starts_anew(
    folder: Path, tmp_path: Path
) -> None:
    def steps(state: CheckpointState, module: Module, optimizer: Optimizer, count: int) -> list[float]:
        losses = []
        for _ in range(count):
            losses.append(float(module(X, Y)[0]))
            optimizer.step()
            module.lazy_reset_grad()
        return losses

    begun = begin(folder)
    begun[2].set_learning_rate(0.05)
    steps(*begun, 3)
    for name, whole in (("with", True), ("without", False)):
        CheckpointState.save_checkpoint(begun[0], tmp_path / name, include_optimizer_state=whole)
    wanted = steps(*begun, 3)
    for name, same in (("with", True), ("without", False)):
        state = CheckpointState.load_checkpoint(tmp_path / name)
        module = Module(folder / "training_model.onnx", state)
        optimizer = Optimizer(folder / "optimizer_model.onnx", module)
        assert optimizer.get_learning_rate() == np.float32(0.05 if same else 1e-3)
        optimizer.set_learning_rate(0.05)
        assert (steps(state, module, optimizer, 3) == wanted) is same


def test_dropout_draws_another_mask_at_each_call_and_none_in_evaluation(tmp_path: Path) -> None:
    generate_artifacts(forward_model(dropout=True), artifact_directory=tmp_path, **ARGUMENTS)
    _, module, _ = begin(tmp_path)
    assert module.input_names() == ["x", "labels"]
    assert len({float(module(X, Y)[0]) for _ in range(4)}) == 4
    module.eval()
    assert len({float(module(X, Y)[0]) for _ in range(4)}) == 1


def test_ort_values_give_ort_values(folder: Path) -> None:
    _, module, _ = begin(folder)
    loss, output = module.eval()(*(ort.OrtValue.ortvalue_from_numpy(array) for array in (X, Y)))
    plain = module(X, Y)
    assert loss.numpy() == plain[0]
    np.testing.assert_array_equal(output.numpy(), plain[1])


def test_parameters_are_read_and_written_by_name_and_as_one_vector(folder: Path) -> None:
    state, module, _ = begin(folder)
    assert (module.get_parameters_size(), module.get_parameters_size(False)) == (40, 64)
    flat = module.get_contiguous_parameters().numpy()
    names = ["fc1.weight", "fc1.bias", "fc2.weight"]  # the model's order
    np.testing.assert_array_equal(flat, np.concatenate([state.parameters[n].data.ravel() for n in names]))
    other = np.arange(40, dtype=np.float32)
    module.copy_buffer_to_parameters(ort.OrtValue.ortvalue_from_numpy(other))
    np.testing.assert_array_equal(state.parameters["fc1.bias"].data, other[32:])
    state.parameters["fc1.bias"] = np.ones(8, np.float32)
    np.testing.assert_array_equal(module.get_contiguous_parameters(True).numpy()[32:], np.ones(8))
    with pytest.raises(ValueError, match="read-only"):
        state.parameters["fc1.bias"].data[:] = 0
    assert "fc1.bias" in state.parameters
    assert len(state.parameters) == 3
    for missing in (state.parameters, state.properties):
        with pytest.raises(KeyError, match="nothing"):
            missing["nothing"]


def test_the_exported_model_gives_what_evaluation_gives(folder: Path, tmp_path: Path) -> None:
    _, module, optimizer = begin(folder)
    module(X, Y)
    optimizer.step()
    module.export_model_for_inferencing(tmp_path / "model.onnx", ["hidden", "output"])
    hidden, output = ort.InferenceSession(tmp_path / "model.onnx").run(None, {"x": X})
    assert hidden.shape == (6, 8)
    np.testing.assert_allclose(output, module.eval()(X, Y)[1], rtol=1e-6)


def test_prefix_and_optional_files(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    onnx.save(forward_model(), path)
    generate_artifacts(
        str(path), ["fc2.weight"], loss=LossType.MSELoss, artifact_directory=tmp_path / "new", prefix="a_"
    )
    names = {entry.name for entry in (tmp_path / "new").iterdir()}
    assert names == {"a_training_model.onnx", "a_eval_model.onnx", "a_checkpoint"}
    state = CheckpointState.load_checkpoint(tmp_path / "new" / "a_checkpoint")
    assert [name for name, _ in state.parameters] == ["fc2.weight"]
    module = Module(tmp_path / "new" / "a_training_model.onnx", state)
    assert module.input_names() == ["x", "target"]
    assert np.shape(module(X, np.zeros((6, 3), np.float32))) == ()


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"requires_grad": None}, UsageError, "nothing to train"),
        ({"requires_grad": "fc1.bias"}, UsageError, "a list of names"),
        ({"requires_grad": ["fc1.bais"]}, UsageError, "Did you mean 'fc1.bias'"),
        ({"frozen_params": ["fc1.bias"]}, UsageError, "both requires_grad and frozen_params"),
        ({"loss": None}, UnsupportedError, "without a loss"),
        ({"loss": "mse"}, UnsupportedError, "LossType.MSELoss"),
        ({"optimizer": object()}, UnsupportedError, "OptimType.AdamW"),
        ({"ort_format": True}, UnsupportedError, "ort_format"),
        ({"nominal_checkpoint": True}, UnsupportedError, "nominal_checkpoint"),
        ({"custom_op_library": "ops.so"}, UnsupportedError, "custom_op_library"),
        ({"additional_output_names": ["hidden"]}, UnsupportedError, "'hidden'"),
        ({"loss_input_names": ["hidden"]}, ModelError, "the model: the model has no output 'hidden'"),
        ({"loss_input_names": ["output", "hidden"]}, UnsupportedError, "one output"),
        ({"model": forward_model(name="loss")}, ModelError, "a value named 'loss'"),
        ({"model": forward_model(name="labels")}, ModelError, "a value named 'labels'"),
        ({"model": 3}, UsageError, "ModelProto"),
        ({"model": "nowhere.onnx"}, ModelError, "nowhere.onnx"),
        ({"artifact_directory": "/proc/nowhere"}, BundleError, "can't be written"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else None,
)
def test_what_cannot_be_generated_is_refused_and_writes_nothing(
    change: dict[str, Any], error: type[CnncError], words: str, tmp_path: Path
) -> None:
    arguments = {"model": forward_model(), "artifact_directory": tmp_path, **ARGUMENTS}
    if "model" in change:
        arguments["additional_output_names"] = None
    with pytest.raises(error) as caught:
        generate_artifacts(**{**arguments, **change})
    assert words in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_a_parameter_called_as_a_state_of_the_optimizer_is_refused(tmp_path: Path) -> None:
    model = forward_model()
    model.graph.initializer[2].name = model.graph.node[1].input[1] = "fc1.bias/exp_avg"
    with pytest.raises(ModelError, match=r"'fc1\.bias/exp_avg' is called as a state"):
        generate_artifacts(model, **{**ARGUMENTS, "frozen_params": None, "artifact_directory": tmp_path})


def test_onnxblock_is_refused_by_name() -> None:
    with pytest.raises(UnsupportedError, match="onnxblock"):
        from cnnc.ort_training import onnxblock  # noqa: F401


def damaged(folder: Path) -> CheckpointState:
    path = folder / "damaged"
    path.write_bytes((folder / "checkpoint").read_bytes()[:-10])
    return CheckpointState.load_checkpoint(path)


MISUSE: list[tuple[Callable[[Path, CheckpointState, Module], Any], type[CnncError], str]] = [
    (lambda f, s, m: CheckpointState.load_checkpoint(f / "none"), RunError, "no such checkpoint"),
    (lambda f, s, m: damaged(f), RunError, "no checkpoint that can be read"),
    (lambda f, s, m: CheckpointState.save_checkpoint(s, "/proc/none"), RunError, "can't be written"),
    (lambda f, s, m: Module(f / "eval_model.onnx", s), UsageError, "no training model"),
    (lambda f, s, m: Module(f / "none", s), BundleError, "can't load"),
    (lambda f, s, m: Module(f / "training_model.onnx", s, device="cuda:1"), ProviderError, "cuda:1"),
    (lambda f, s, m: Module(f / "training_model.onnx", s, device="tpu"), UsageError, "tpu"),
    (lambda f, s, m: Optimizer(f / "eval_model.onnx", m), UsageError, "no optimizer model"),
    (lambda f, s, m: m(X), UsageError, "2 inputs (x, labels), not 1"),
    (lambda f, s, m: m(X[:, :3], Y), ModelError, "training_model.onnx"),
    (lambda f, s, m: m(X, Y.astype(np.int32)), ModelError, "int64"),
    (lambda f, s, m: m(X, Y + 1), DataError, "labels go from 0 to 2"),
    (lambda f, s, m: m.copy_buffer_to_parameters(m.get_contiguous_parameters()), DataError, "40 elements"),
    (lambda f, s, m: s.parameters.__setitem__("fc1.bias", np.ones(3)), DataError, "float32 [8]"),
    (lambda f, s, m: s.properties.__setitem__("a", None), UsageError, "int, float or str"),  # type: ignore[assignment]  # wrong on purpose
    (lambda f, s, m: m.export_model_for_inferencing(f / "x", ["outptu"]), UsageError, "'output'"),
    (lambda f, s, m: m.export_model_for_inferencing(f / "x", []), UsageError, "empty"),
    (lambda f, s, m: m.export_model_for_inferencing("/proc/x", ["output"]), ModelError, "can't be written"),
]


@pytest.mark.parametrize(("call", "error", "words"), MISUSE, ids=[words for _, _, words in MISUSE])
def test_misuse_is_told_in_words_and_changes_nothing(
    call: Callable[[Path, CheckpointState, Module], Any], error: type[CnncError], words: str, folder: Path
) -> None:
    state, module, _ = begin(folder)
    before = module.get_contiguous_parameters().numpy()
    with pytest.raises(error) as caught:
        call(folder, state, module)
    assert words in str(caught.value)
    np.testing.assert_array_equal(module.get_contiguous_parameters().numpy(), before)
    assert not np.any(state.parameters["fc1.bias"].grad)


def test_without_an_evaluation_model_evaluation_is_refused(folder: Path) -> None:
    _, module, _ = begin(folder, evaluation=False)
    module.eval()
    for call in (
        lambda: module(X, Y),
        module.input_names,
        lambda: module.export_model_for_inferencing(folder / "x.onnx", ["output"]),
    ):
        with pytest.raises(UsageError, match="no evaluation model"):
            call()


def test_training_imports_no_part_of_the_compiler(folder: Path) -> None:
    code = (
        "import sys; from cnnc.ort_training.api import *; from cnnc.ort_training import artifacts; "
        f"s = CheckpointState.load_checkpoint({str(folder / 'checkpoint')!r}); "
        f"m = Module({str(folder / 'training_model.onnx')!r}, s); "
        f"Optimizer({str(folder / 'optimizer_model.onnx')!r}, m); "
        "print([n for n in ('onnx_ir', 'cnnc.compiler', 'cnnc.ir', 'cnnc.losses') if n in sys.modules])"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, encoding="utf-8", check=True)
    assert ended.stdout.strip() == "[]"
