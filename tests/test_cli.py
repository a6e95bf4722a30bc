"""The command line: what each command prints, and what it must not load to do so."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from command_line import PROGRAM, SMALL, call, done, spawn
from PIL import Image

from cnnc import __version__
from cnnc.bundle import Bundle
from cnnc.cli.app import COMMANDS
from cnnc.data import load
from cnnc.errors import ModelError
from cnnc.runtime import Settings

HEAVY = {"numpy", "onnx", "onnxruntime", "onnx_ir", "PIL", "safetensors"}
COMPILER = {
    *("cnnc.autodiff", "cnnc.compiler", "cnnc.graph_file", "cnnc.ir", "cnnc.losses", "cnnc.lowering"),
    *("cnnc.metrics", "cnnc.nn", "cnnc.optim", "cnnc.program", "onnx_ir"),
}
QUICK = ("--epochs", 2, "--batch-size", 100, "--device", "cpu", "--threads", 1)


def loaded(*command_lines: list[str]) -> set[str]:
    """The modules a fresh process has loaded after these command lines."""
    code = """if True:
        import json, os, sys
        from cnnc.cli import main
        for line in json.loads(sys.argv[1]):
            try:
                main(line)
            except SystemExit as ended:
                assert ended.code == 0
        os.write(3, "\\n".join(sys.modules).encode())"""
    command = 'exec 3>&1 1>/dev/null; exec "$@"'
    lines = json.dumps(command_lines)
    ended = subprocess.run(
        ["bash", "-c", command, "bash", sys.executable, "-c", code, lines],
        capture_output=True,
        text=True,
        check=True,
    )
    return set(ended.stdout.split())


@pytest.fixture(scope="module")
def run(tiny: Path) -> Path:
    path = tiny.parent / "run"
    done("train", tiny, "--data", "digits", "-o", path, *QUICK)
    return path


@pytest.fixture
def graph_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "small.py"
    path.write_text(SMALL)
    return path


def test_help_loads_nothing_heavy() -> None:
    modules = loaded(["--help"], ["--version"], *([name, "--help"] for name in COMMANDS))
    assert "typer" in modules
    assert not modules & HEAVY


def test_training_a_bundle_loads_no_compiler(tiny: Path, tmp_path: Path) -> None:
    modules = loaded(["train", str(tiny), "--data", "digits", "-o", str(tmp_path / "run"), "--epochs", "1"])
    assert "onnxruntime" in modules
    assert not modules & COMPILER


def test_version() -> None:
    assert done("--version").out == f"cnnc {__version__}\n"


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_that_fits_80_columns(name: str) -> None:
    text = done(name, "--help").out
    assert text.startswith(f"Usage: cnnc {name} ")
    assert max(map(len, text.splitlines())) <= 80
    assert "--debug" in text
    assert "--json" in text
    assert name in done("--help").out


def test_help_names_the_defaults_that_settings_have() -> None:
    text = " ".join(done("train", "--help").out.split())
    assert f"Passes over the training data ({Settings.epochs})." in text
    assert f"Examples a step ({Settings.batch_size})." in text
    assert f"({Settings.device})." in text


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("bild",),
        ("build",),
        ("build", "digits", "--nope"),
        ("build", "digits", "--seed", "-1"),
        ("build", "digits", "--seed", "one"),
        ("build", "digits", "--set", "width"),
        ("train", "--epochs", "0"),
        ("train", "--epochs", "many"),
        ("train", "--batch-size", "0"),
        ("train", "--lr", "-1"),
        ("train", "--lr", "nan"),
        ("train", "--seed", str(2**31)),
        ("train", "--validation", "1"),
        ("train", "--validation", "-0.1"),
        ("train", "--limit", "0"),
        ("train", "--patience", "0"),
        ("train", "--reduce-on-plateau", "0"),
        ("train", "--plateau-factor", "1"),
        ("train", "--on-nan", "ignore"),
        ("train", "--save-every", "-1"),
        ("train", "--config", "nowhere.toml"),
        ("train", "--resume", "run", "-o", "other"),
        ("train", "--resume", "run", "--config", "settings.toml"),
        ("train", "--resume", "run", "--init-from", "run"),
        ("eval", "run", "--data", "digits", "--which", "first"),
        ("predict", "model.onnx"),
        ("export", "run"),
        ("verify", "run", "--tolerance", "-1"),
    ],
    ids=" ".join,
)
def test_wrong_usage_exits_with_2(
    arguments: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = call(*arguments)
    assert result.status == (2 if arguments else result.status)
    assert "Traceback" not in result.err
    assert result.out + result.err
    assert not list(tmp_path.iterdir())


def test_wrong_usage_of_a_bundle(tiny: Path, tmp_path: Path) -> None:
    for arguments, said in (
        (["--data", "digits", "--set", "width=3"], "is a bundle, built already"),
        ([], "--data: digits, mnist, fashion-mnist, or a folder"),
        (["--data", "digits", "--device", "cud"], "Did you mean 'cuda'?"),
    ):
        result = call("train", tiny, "-o", tmp_path / "run", *arguments)
        assert result.status == 2
        assert said in result.err
        assert not list(tmp_path.iterdir())


def test_build(graph_file: Path) -> None:
    result = done("build", graph_file)
    assert (
        result.out
        == "small.bundle: network 'small', 410 parameters.\nTrain it with `cnnc train small.bundle`.\n"
    )
    assert result.err == ""
    assert Bundle.open("small.bundle").manifest.name == "small"


def test_build_with_options_as_json(graph_file: Path) -> None:
    result = done("build", graph_file, "-o", "wide", "--set", "width=8", "--seed", 3, "--json")
    assert json.loads(result.out) == {"bundle": "wide", "name": "small", "parameters": 810}
    assert Bundle.open("wide").manifest.seed == 3


def test_train_a_graph_file(graph_file: Path) -> None:
    result = done("train", graph_file, "--data", "digits", "--set", "width=6", "--seed", 1, *QUICK)
    *_, best, last, report = result.out.splitlines()
    assert result.out.startswith("run runs/small-1: 2 epochs, 30 steps in ")
    assert re.fullmatch(r"best epoch [12]: test accuracy 0\.\d{4}, loss \d\.\d{4}", best)
    assert re.fullmatch(r"test accuracy 0\.\d{4}, loss \d\.\d{4}", last)
    assert report == "report runs/small-1/report.html"
    assert float(last.split()[2].rstrip(",")) > 0.7
    assert re.search(
        r"^epoch 2/2: accuracy 0\.\d{4}, loss \d\.\d{4}; test accuracy 0\.", result.err, re.MULTILINE
    )
    assert "2 epochs of 15 steps, 100 examples a step" in result.err
    manifest = Bundle.open("runs/small-1/bundle").manifest
    assert (manifest.seed, manifest.state[0].shape[0]) == (1, 6)


def test_train_as_json(tiny: Path, tmp_path: Path) -> None:
    result = done("train", tiny, "--data", "digits", "-o", tmp_path / "run", "--json", *QUICK)
    record = json.loads(result.out)
    assert record["run"] == str(tmp_path / "run")
    assert (record["epochs"], record["steps"]) == (2, 30)
    assert 0 < record["test_accuracy"] <= 1
    assert record["step_ms_median"] > 0
    assert record["images_per_second"] > 0
    assert "epoch 1/2" in result.err


def test_quiet_training_says_only_the_result(tiny: Path, tmp_path: Path) -> None:
    result = done("train", tiny, "--data", "digits", "-o", tmp_path / "run", "-q", *QUICK)
    assert result.err == ""
    assert "test accuracy" in result.out


def test_resume_goes_on_with_more_epochs(tiny: Path, tmp_path: Path) -> None:
    done("train", tiny, "--data", "digits", "-o", tmp_path / "run", *QUICK)
    result = done("train", "--resume", tmp_path / "run", "--epochs", 3, "--json")
    assert json.loads(result.out)["epochs"] == 3
    assert "from step 30" in result.err
    assert call("train", "--resume", tmp_path / "run").status == 1


def test_summary(graph_file: Path) -> None:
    text = done("summary", graph_file).out
    assert max(map(len, text.splitlines())) <= 80
    rows = {row.split()[0]: row for row in text.splitlines() if row.strip()}
    assert rows["conv1"].split() == ["conv1", "4×3×3", "40", "648", "ConvGradWeight", "·", "one_hot"]
    assert rows["dense1"].split()[1:4] == ["10", "370", "720"]
    assert rows["total"].split() == ["total", "410", "1.37", "k"]
    assert "AdamUpdate · adam ×4" in rows["update"]
    assert "SoftmaxCrossEntropy · log_softmax" in rows["loss"]
    assert "augmented" not in text
    assert not list(graph_file.parent.glob("*.bundle"))


def test_summary_tells_of_augmentation(graph_file: Path) -> None:
    text = graph_file.read_text().replace("import Program", "import augment, Program")
    choice = "augment.RandomChoice([augment.RandomCrop(1), augment.RandomHorizontalFlip(0.3)])"
    graph_file.write_text(text.replace("optimizer=", f"augment=[{choice}, augment.MixUp(0.2)], optimizer="))
    (line,) = (row for row in done("summary", graph_file).out.splitlines() if "augmented" in row)
    assert line == (
        "Training examples are augmented: RandomChoice(augmentations=(RandomCrop(padding=(1, 1), "
        "padding_mode=constant, fill=0.0), RandomHorizontalFlip(p=0.3))), MixUp(alpha=0.2, p=1.0)."
    )
    record = json.loads(done("summary", graph_file, "--json").out)
    assert [step["name"] for step in record["augment"]] == ["RandomChoice", "MixUp"]


def test_summary_as_json_of_a_bundle(tmp_path: Path) -> None:
    done("build", "resnet_cifar", "--set", "depth=8", "-o", tmp_path / "resnet")
    record = json.loads(done("summary", tmp_path / "resnet", "--json").out)
    layers = {layer["name"]: layer for layer in record["layers"]}
    assert record["parameters"] == sum(layer["parameters"] for layer in record["layers"]) == 78_714
    assert record["flops"] == 2 * sum(layer["multiply_adds"] for layer in record["layers"])
    assert layers["conv1"]["multiply_adds"] == 32 * 32 * 16 * 3 * 9
    assert layers["conv1"]["where"] == "resnet_cifar.py:13"
    assert layers["conv1"]["output"] == ["N", 16, 32, 32]
    assert layers["bn1"]["operators"] == ["BatchNormalizationTraining"]
    assert {f["op"] for f in layers["bn1"]["functions"]} == {
        "BatchNormalizationTraining",
        "BatchNormalizationGrad",
    }


def test_ascii_output_has_no_character_it_lacks(graph_file: Path) -> None:
    result = spawn("summary", graph_file, PYTHONIOENCODING="ascii")
    assert result.status == 0
    assert r"4\xd73\xd73" in result.out


def test_a_reader_that_goes_away_is_no_error(graph_file: Path) -> None:
    command = [*PROGRAM, "summary", str(graph_file)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""


def test_debug_shows_the_traceback(tmp_path: Path) -> None:
    for arguments in (["--debug", "build", "nope.py"], ["build", "nope.py", "--debug"]):
        result = call(*arguments)
        assert result.status == 1
        assert result.err.startswith("Traceback (most recent call last):")
        assert result.err.splitlines()[-1].startswith("error: nope.py: there is no such graph file.")


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (
            ZeroDivisionError("by\nzero"),
            1,
            "internal error: ZeroDivisionError: by zero. This is a bug in cnnc",
        ),
        (AssertionError(), 1, "internal error: AssertionError. This is a bug in cnnc"),
        (MemoryError(), 1, "error: this needs more memory than there is."),
        (OSError(28, "No space left on device", "x"), 1, "error: x: the system refused this: No space left"),
        (ModelError("one\ntwo.", where="a.onnx"), 1, "error: a.onnx: one two."),
        (KeyboardInterrupt(), 130, "interrupted."),
    ],
    ids=lambda value: type(value).__name__,
)
def test_errors_are_told_in_one_line(
    error: BaseException, status: int, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("cnnc.build.build", broken)
    result = call("build", "digits", "--json")
    assert (result.status, result.out) == (status, "")
    (line,) = result.err.splitlines()
    assert line.startswith(said)
    assert ("--debug" in line) == ("bug" in line)


def test_eval_of_a_run_is_what_training_said(run: Path) -> None:
    summary = json.loads((run / "summary.json").read_text())
    last = json.loads(done("eval", run, "--which", "last", "--device", "cpu", "--json").out)
    assert last["test_accuracy"] == summary["test_accuracy"]
    assert last["test_loss"] == pytest.approx(summary["test_loss"], rel=1e-5)
    best = done("eval", run, "--data", "digits", "--device", "cpu").out
    assert (
        best == f"test accuracy {summary['best_test_accuracy']:.4f}, loss {summary['best_test_loss']:.4f}\n"
    )


def test_export_then_eval_and_predict(run: Path, tmp_path: Path) -> None:
    model = tmp_path / "model.onnx"
    result = done("export", run, "-o", model, "--embed-preprocessing", "--opset", 20)
    assert result.out.startswith(f"{model}: ")
    assert "opset 20" in result.out
    assert "proved on the test split of digits (360)" in result.out
    assert done("eval", model, "--data", "digits").out == done("eval", run).out
    without_data = call("eval", model)
    assert without_data.status == 2
    assert "Give --data." in without_data.err

    digits = load("digits").test
    images = [tmp_path / f"{index}.png" for index in range(3)]
    for index, path in enumerate(images):
        Image.fromarray(digits.images[index, 0]).save(path)
    by_model, by_run = (json.loads(done("predict", source, *images, "--json").out) for source in (model, run))
    for ours, theirs in zip(by_model["predictions"], by_run["predictions"], strict=True):
        assert ours["scores"][0]["name"] == theirs["scores"][0]["name"]
        assert ours["scores"][0]["value"] == pytest.approx(theirs["scores"][0]["value"], abs=1e-5)
    lines = done("predict", run, *images, "--top", 2).out.splitlines()
    assert [line.partition(":")[0] for line in lines] == list(map(str, images))
    assert all(re.search(r": \d [01]\.\d{4}, \d 0\.\d{4}$", line) for line in lines)


def test_what_may_not_be_read_is_no_wrong_usage(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As root may read every file, the system's answers are made up."""
    model, image = tmp_path / "model.onnx", tmp_path / "image.png"
    done("export", run, "-o", model)
    Image.fromarray(load("digits").test.images[0, 0]).save(image)
    opened = Path.open

    def refuse(path: Path, *arguments: Any, **fields: Any) -> Any:
        if path in refused:
            raise PermissionError(13, "Permission denied", str(path))
        return opened(path, *arguments, **fields)

    monkeypatch.setattr(os, "access", lambda path, mode: False)
    monkeypatch.setattr(Path, "open", refuse)
    for refused in ([image], [model]):
        result = call("predict", model, image)
        assert (result.status, result.out) == (1, "")
        assert result.err == f"error: {refused[0]}: this can't be read: Permission denied.\n"


def test_export_as_json(run: Path, tmp_path: Path) -> None:
    record = json.loads(done("export", run, "-o", tmp_path / "model.onnx", "--data", "digits", "--json").out)
    assert record["path"] == str(tmp_path / "model.onnx")
    assert record["difference"] < 1e-5
    assert record["metrics"]["accuracy"]["exported"] == record["metrics"]["accuracy"]["run"]


def test_verify(run: Path) -> None:
    result = done("verify", run)
    assert max(map(len, result.out.splitlines())) <= 80
    assert "onnx reference" in result.out
    assert "onnx reference …" in result.err


def test_verify_beyond_the_tolerance_fails_with_its_report(run: Path) -> None:
    result = call("verify", run, "--tolerance", 0, "--json")
    assert result.status == 1
    record = json.loads(result.out)
    assert not record["ok"]
    assert result.err.splitlines()[-1].startswith(f"error: {run}: beyond the tolerance of 0")
    assert "onnx reference" in result.err.splitlines()[-1]
