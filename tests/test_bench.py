"""`cnnc bench`: times, memory, layers, and the picture."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from built import build, compiled
from command_line import SMALL, call, done

from cnnc.bundle import Bundle
from cnnc.errors import UsageError
from cnnc.profiling import Subject, bench
from cnnc.profiling.attribution import Origin, Origins
from cnnc.profiling.inline import inlined
from cnnc.profiling.profile import read
from cnnc.runtime.session import spec_of


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return build("digits", tmp_path_factory.mktemp("bench") / "digits.bundle")


def test_train_step_by_layer_and_part_with_a_picture(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    (tmp_path / "small.py").write_text(SMALL)
    picture = tmp_path / "small.png"
    result = done("bench", tmp_path / "small.py", "--steps", 10, "--batch-size", 8, "-o", picture, "--json")
    report = json.loads(result.out)
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert report["batch_size"] == 8
    assert report["steps"] == 10
    step = report["step_ms"]
    assert 0 < step["min"] <= step["p10"] <= step["median"] <= step["p90"]
    assert report["images_per_second"] == pytest.approx(8e3 / step["median"])
    assert 20 < report["peak_memory_mb"] < 300
    profile = report["profile"]
    rows = {row["layer"]: row["parts"] for row in profile["rows"]}
    assert list(rows) == ["conv1", "flatten1", "dense1", "loss", "metrics", "update"]
    assert rows["conv1"].keys() == {
        "forward",
        "input gradient",
        "weight gradient",
        "update",
    }  # that of its ReLU
    assert rows["loss"].keys() == {"loss"}
    assert profile["unassigned"] == 0.0
    total = sum(ms for parts in rows.values() for ms in parts.values())
    assert total == pytest.approx(profile["kernels"]) == pytest.approx(sum(profile["operators"].values()))


@pytest.mark.parametrize("task", ["eval", "infer"])
def test_other_passes_of_a_bundle(bundle: Bundle, task: str) -> None:
    result = done("bench", bundle.path, "--pass", task, "--steps", 3, "--batch-size", 4)
    assert "conv1" in result.out
    assert "gradient" not in result.out
    assert "100%" in result.out


def test_a_model_is_measured_as_it_stands(bundle: Bundle) -> None:
    report = json.loads(done("bench", bundle.path / "infer.onnx", "--steps", 3, "--json").out)
    assert report["pass"] == "infer"
    assert report["profile"]["unassigned"] == 0.0


def test_another_step_in_place_of_the_bundles(bundle: Bundle, tmp_path: Path) -> None:
    path = tmp_path / "step.onnx"
    onnx.save(inlined(onnx.load(bundle.graph("train.onnx"))), path)
    report = bench(Subject.of_bundle(bundle, batch=4, graph=path), steps=2)
    assert report.graph == str(path)
    assert report.profile is not None
    assert {"conv1", "bn1", "conv2"} <= {row.layer for row in report.profile.rows}
    assert report.profile.unassigned == 0.0


def test_every_node_of_a_step_has_an_origin() -> None:
    program = compiled("branches")
    graph = onnx.load_from_string(program.graphs["train.onnx"]).graph
    trained = {entry.name for entry in program.manifest.entries("parameter")}
    origins = Origins(graph, trained)
    lost = [n.name for n in graph.node if n.op_type != "Constant" and not origins.by_node.get(n.name)]
    assert lost == []
    assert origins.find("grad/conv1/weight") == Origin("conv1", "weight gradient")
    assert origins.find("grad/conv1/weight/MatMul/MatmulTransposeFusion/") == Origin(
        "conv1", "weight gradient"
    )
    assert origins.find("conv1_nchwc") == Origin("conv1", "forward")
    assert origins.find("update/conv1.weight") == Origin("conv1", "update")
    assert origins.find("ReorderInput") is None
    assert origins.by_node["grad/loss/SoftmaxCrossEntropy/logits"].part == "loss"


def test_inlined_graph_computes_the_same(bundle: Bundle) -> None:
    subject = Subject.of_bundle(bundle, batch=4)
    model = onnx.load(bundle.graph("train.onnx"))
    flat = inlined(model)
    assert not flat.functions
    names = [node.name for node in flat.graph.node]
    assert len(names) == len(set(names))
    onnx.checker.check_model(flat, full_check=True)
    results = []
    for proto in (model, flat):
        session = ort.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
        feeds = subject.feeds([*map(spec_of, session.get_inputs())])
        results.append(session.run(None, feeds))
    for one, other in zip(*results, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)


def test_profile_counts_no_event_twice_and_says_what_it_cannot_assign(tmp_path: Path) -> None:
    x, y, z = (onnx.helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, [1]) for n in "xyz")
    known = onnx.helper.make_node("Relu", ["x"], ["y"], name="relu1")
    strange = onnx.helper.make_node("Abs", ["w"], ["z"], name="made_by_the_runtime")
    graph = onnx.helper.make_graph([known, strange], "g", [x], [y, z])
    onnx.save(onnx.helper.make_model(graph), tmp_path / "optimised.onnx")

    def node(name: str, op: str, ts: int, dur: int) -> dict[str, object]:
        return {"cat": "Node", "name": f"{name}_kernel_time", "ts": ts, "dur": dur, "args": {"op_name": op}}

    events: list[dict[str, object]] = [
        {"cat": "Session", "name": "model_run", "ts": at, "dur": 90} for at in (0, 100, 200)
    ]
    for start in (0, 100, 200):
        events += [node("relu1", "Relu", start + 1, 30), node("inside_a_loop", "Add", start + 2, 20)]
        events += [node("made_by_the_runtime", "Abs", start + 40, 10)]
    (tmp_path / "profile.json").write_text(json.dumps(events))
    alone = onnx.helper.make_graph([known], "g", [x], [y])
    times = read(tmp_path / "profile.json", tmp_path / "optimised.onnx", Origins(alone, ()))
    assert times.by_origin == {Origin("relu1", "forward"): pytest.approx(0.03)}
    assert times.unassigned == pytest.approx(0.01)
    assert times.between == pytest.approx(0.05)


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (["nothing.onnx"], 2, "there is no model 'nothing.onnx'"),
        (["digits", "--pass", "trian"], 2, "Did you mean 'train'?"),
        (["digits", "-o", "picture.jpeg"], 2, "Let it end in .png, .svg or .pdf."),
        (["digits", "--device", "tpu"], 2, "there is no device 'tpu'"),
    ],
)
def test_wrong_calls(arguments: list[str], status: int, words: str) -> None:
    result = call("bench", *arguments)
    assert result.status == status
    assert words in result.err
    assert result.out == ""


def test_a_damaged_model(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"\x0aabc")
    result = call("bench", tmp_path / "model.onnx")
    assert result.status == 1
    assert "this graph can't be read" in result.err


def test_open_sizes_are_asked_for(tmp_path: Path) -> None:
    x = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["N", 3, "H", "W"])
    y = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["N", 3, "H", "W"])
    graph = onnx.helper.make_graph([onnx.helper.make_node("Relu", ["x"], ["y"], name="relu")], "g", [x], [y])
    path = tmp_path / "open.onnx"
    onnx.save(
        onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=10), path
    )
    result = call("bench", path)
    assert result.status == 2
    assert "--input-size 3x224x224" in result.err
    assert done("bench", path, "--input-size", "3x8x8", "--steps", 2, "--batch-size", 2).status == 0


def test_a_picture_needs_its_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "matplotlib", None)
    from cnnc.profiling.picture import check_picture

    with pytest.raises(UsageError, match=r"cnnc\[plots\]"):
        check_picture(tmp_path / "a.png")
