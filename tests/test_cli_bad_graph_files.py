"""Graph files that can't be built: one paragraph with the user's own line, exit status 1, nothing written."""

from __future__ import annotations

from pathlib import Path

import pytest
from command_line import SMALL, check_refused

HEAD = "from cnnc import Program, Tensor, losses, metrics, nn, optim\n"


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def network(layers: str, shape: str = '("N", 1, 8, 8)', more: str = "") -> str:
    return (
        f'{HEAD}program = Program(\n    input=Tensor("image", {shape}),\n'
        f"    model=nn.Sequential(\n{layers}\n    ),\n"
        f"    loss=losses.SoftmaxCrossEntropy(),\n    optimizer=optim.Adam(),\n{more})\n"
    )


GRAPH_FILES: dict[str, tuple[str, tuple[str, ...]]] = {
    "syntax error": ("program = (\n", ("bad.py:1", "this is not Python")),
    "null bytes": ("program\0", ("bad.py", "this is not Python")),
    "exception": (f"{HEAD}\n1 / 0\n", ("bad.py:3", "ZeroDivisionError")),
    "missing module": ("import no_such_module\n", ("bad.py:1", "ModuleNotFoundError", "no_such_module")),
    "it exits": ("raise SystemExit(0)\n", ("bad.py:1", "SystemExit")),
    "no program": ("x = 1\n", ("bad.py", "no `program`", "program = Program(")),
    "not a program": ("program = 3\n", ("bad.py", "is an int, not a Program")),
    "empty": ("", ("bad.py", "no `program`")),
    "duplicate names": (
        network('nn.Conv2d(2, 3, name="a"),\nnn.Flatten(),\nnn.Dense(10, name="a")'),
        ("bad.py:7", "two layers have the name 'a'", "bad.py:5"),
    ),
    "zero channels": (network("nn.Conv2d(0, 3)"), ("bad.py:5", "channels", "0")),
    "negative size": (network("nn.Flatten(), nn.Dense(-10)"), ("bad.py:5", "units", "-10")),
    "zero input": (network("nn.Flatten(), nn.Dense(10)", '("N", 1, 0, 8)'), ("bad.py:3", "0")),
    "shapes that don't fit": (network("nn.Dense(10)"), ("bad.py:5", "Dense", "[N, 1, 8, 8]", "nn.Flatten()")),
    "window beyond the image": (network("nn.Conv2d(2, 9)"), ("bad.py:5", "Conv2d", "9", "8")),
    "the model exits": (
        network("leave").replace("program =", "def leave(x):\n    raise SystemExit(0)\n\nprogram =", 1),
        ("bad.py:3", "the model raised SystemExit"),
    ),
    "an exception of its own": (
        f"{HEAD}class Stop(BaseException):\n    pass\nraise Stop('here')\n",
        ("bad.py:4", "Stop: here"),
    ),
    "a metric of its own raises": (
        network("nn.Flatten(), nn.Dense(10)", more="    metrics=[Odd()],\n").replace(
            "program =",
            "class Odd(metrics.Accuracy):\n    def check(self, output, target):\n        1 / 0\n\nprogram =",
        ),
        ("bad.py:4", "the model raised ZeroDivisionError"),
    ),
    "two classes of a name": (
        network("nn.Flatten(), nn.Dense(2)", more='    classes=["cat", "cat"],\n'),
        ("bad.py:2", "two classes have the name 'cat'"),
    ),
    "a class without a name": (
        network("nn.Flatten(), nn.Dense(2)", more='    classes=["cat", " "],\n'),
        ("bad.py:2", "a class name is empty"),
    ),
    "softmax before dropout": (
        network("nn.Flatten(), nn.Dense(10), nn.Softmax(), nn.Dropout(0.1)"),
        ("bad.py:5", "Softmax"),
    ),
    "no softmax twice": (network("nn.Flatten(), nn.Dense(10), nn.Softmax()"), ("bad.py:5", "Softmax")),
    "nothing to train": (network("nn.Flatten()"), ("nothing to train",)),
    "a parameter too large": (network("nn.Flatten(), nn.Dense(10**9)"), ("bad.py:5", "Dense")),
    "endless recursion": (
        network("f").replace("program =", "def f(x):\n    return f(x)\n\nprogram ="),
        ("bad.py", "RecursionError"),
    ),
}


@pytest.mark.parametrize(("text", "said"), GRAPH_FILES.values(), ids=GRAPH_FILES)
def test_graph_files(text: str, said: tuple[str, ...], place: Path) -> None:
    (place / "bad.py").write_text(text)
    check_refused(("build", "bad.py"), said, place)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("build", "mnits"), ("mnits", "Did you mean 'mnist'?")),
        (("build", "smal.py"), ("smal.py", "Did you mean 'small.py'?")),
        (("build", "."), (".", "this is a folder")),
        (("build", "notes.txt"), ("notes.txt", "does not end in .py")),
        (("build", "model.onnx"), ("model.onnx", "holds no ONNX graph")),
        (("build", "small.py", "--set", "widht=3"), ("no option 'widht'", "Did you mean 'width'?")),
        (("build", "small.py", "--set", "width=wide"), ("option 'width' must be an integer, not 'wide'",)),
        (("build", "small.py", "--set", "width=0"), ("small.py:", "channels", "0")),
        (("build", "digits", "--set", "width=3"), ("digits.py", "there is no option 'width'")),
        (("summary", "nothing.bundle"), ("nothing.bundle", "there is no such bundle")),
        (("summary", "folder"), ("folder", "no bundle")),
        (("train", "nothing.bundle", "--data", "digits"), ("there is no such bundle",)),
    ],
    ids=lambda value: " ".join(map(str, value)) if value[0] in ("build", "summary", "train") else "",
)
def test_sources(arguments: tuple[str, ...], said: tuple[str, ...], place: Path) -> None:
    (place / "small.py").write_text(SMALL)
    (place / "notes.txt").write_text("notes")
    (place / "model.onnx").write_bytes(b"")
    (place / "folder").mkdir()
    check_refused(arguments, said, place)
