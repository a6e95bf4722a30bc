"""Bad data, bundles, runs and outputs: one clear paragraph, exit status 1, nothing half-written."""

from __future__ import annotations

import io
import json
import math
import shutil
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from command_line import call, check_refused, contents, done, spawn
from faults import alter, truncate
from PIL import Image

from cnnc.bundle import GRAPHS, MANIFEST, STATE, Bundle, seal

QUICK = ("--epochs", 1, "--batch-size", 500, "--device", "cpu", "--threads", 1, "-q")


@pytest.fixture(scope="module")
def finished(tiny: Path) -> Path:
    path = tiny.parent / "run"
    done("train", tiny, "--data", "digits", "-o", path, *QUICK)
    return path


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def npz(images: np.ndarray | None = None, labels: np.ndarray | None = None) -> bytes:
    file = io.BytesIO()
    x = np.zeros((20, 8, 8), np.uint8) if images is None else images
    np.savez(file, x=x, y=np.arange(len(x)) % 10 if labels is None else labels)
    return file.getvalue()


def lying_header() -> bytes:
    """An archive whose x claims a million images and holds one."""
    array = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        array, {"descr": "|u1", "fortran_order": False, "shape": (1_000_000, 8, 8)}
    )
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("x.npy", array.getvalue() + bytes(64))
        archive.writestr("y.npy", b"")
    return file.getvalue()


def pair(content: bytes, suffix: str = ".npz") -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        folder.mkdir()
        for split in ("train", "test"):
            (folder / f"{split}{suffix}").write_bytes(content)

    return write


def idx(folder: Path) -> None:
    folder.mkdir()
    for split in ("train", "t10k"):
        (folder / f"{split}-images-idx3-ubyte").write_bytes(struct.pack(">4I", 0x803, 20, 8, 8) + bytes(100))
        (folder / f"{split}-labels-idx1-ubyte").write_bytes(struct.pack(">2I", 0x801, 20) + bytes(20))


def image_folders(size: tuple[int, int], content: bytes | None = None) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        for split in ("train", "test"):
            for label in map(str, range(10)):
                (folder / split / label).mkdir(parents=True)
                file = folder / split / label / "a.png"
                if content is None:
                    Image.new("L", size).save(file)
                else:
                    file.write_bytes(content)

    return write


DATA: dict[str, tuple[Callable[[Path], object], tuple[str, ...]]] = {
    "missing": (lambda folder: None, ("data", "no such folder")),
    "a file": (lambda folder: folder.write_text("x"), ("data", "this is a file")),
    "empty folder": (lambda folder: folder.mkdir(), ("data", "no data set cnnc knows")),
    "empty file": (pair(b""), (".npz", "empty")),
    "text called .npz": (pair(b"not an archive"), (".npz", "not")),
    "truncated": (pair(npz()[:300]), (".npz", "truncated")),
    "labels out of range": (pair(npz(labels=np.full(20, 10))), ("10", "0 to 9")),
    "negative labels": (pair(npz(labels=np.full(20, -1))), ("-1", "0 to 9")),
    "labels as floats": (pair(npz(labels=np.full(20, 0.5))), (".npz", "labels", "class indices")),
    "fewer labels": (pair(npz(labels=np.zeros(19, np.int64))), ("20", "19")),
    "other size": (pair(npz(np.zeros((20, 9, 9), np.uint8))), ("9", "[1, 8, 8]")),
    "other channels": (pair(npz(np.zeros((20, 3, 8, 8), np.uint8))), ("3", "[1, 8, 8]")),
    "no images": (pair(npz(np.zeros((0, 8, 8), np.uint8))), ("no images",)),
    "NaN": (pair(npz(np.full((20, 8, 8), np.nan, np.float32))), ("NaN",)),
    "object arrays": (pair(npz(np.array([[None]] * 20))), (".npz", "object")),
    "a header that lies": (pair(lying_header()), (".npz", "x")),
    "truncated IDX": (idx, ("images-idx3-ubyte",)),
    "images of another size": (image_folders((9, 8)), ("a.png", "8×9", "8×8")),
    "no image": (image_folders((8, 8), b"GIF89a"), ("a.png",)),
}


@pytest.mark.parametrize(("write", "said"), DATA.values(), ids=DATA)
def test_data(write: Callable[[Path], object], said: tuple[str, ...], tiny: Path, place: Path) -> None:
    write(place / "data")
    check_refused(("train", tiny, "--data", "data", "-o", "run", *QUICK), said, place)


# Bundles and runs.


DAMAGES: dict[str, Callable[[Path], None]] = {"missing": Path.unlink, "truncated": truncate, "altered": alter}


BUNDLE_DAMAGES = [(name, damage) for name in (*GRAPHS, STATE, MANIFEST) for damage in DAMAGES]


@pytest.mark.parametrize(("name", "damage"), BUNDLE_DAMAGES)
def test_damaged_bundles(name: str, damage: str, tiny: Path, place: Path) -> None:
    shutil.copytree(tiny, place / "copy.bundle")
    DAMAGES[damage](place / "copy.bundle" / name)
    check_refused(("train", "copy.bundle", "--data", "digits", "-o", "run", *QUICK), (name,), place)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"version": 99}, "version is 99"),
        ({"input": None}, "manifest.input"),
        ({"surprise": 1}, "surprise"),
        ({"learning_rate": -1}, "the learning rate is -1"),
        ({"learning_rate": math.nan}, "the learning rate is nan"),
        ({"seed": -1}, "the seed is -1"),
        ({"classes": ["a", "b"]}, "there are 2 classes for 10 outputs"),
        ({"accumulate": 0}, "accumulate is 0"),
        ({"average": 1}, "the decay of the moving average is 1"),
        ({"scalars": {"lr_scale": math.inf}}, "lr_scale is inf"),
        ({"preprocessing": {"scale": 0}}, "the scale of images is 0"),
        ({"preprocessing": {"crop": 1.5}}, "the crop of images is 1.5"),
        ({"preprocessing": {"mean": [0.1, 0.2]}}, "there are 2 numbers in mean, for 1 channels"),
        ({"preprocessing": {"std": [0]}}, "there is 0 in std"),
        (
            {"memory": {"limit": 1, "batch": 1, "estimate": 1, "recomputed": 0, "chunks": 0}},
            "memory.chunks is 0",
        ),
        ({"metrics": [{"name": "loss", "better": "lower"}] * 2}, "a metric called 'loss' is there twice"),
        (
            {"adapters": [{"weight": "dense.weight", "left": "l", "right": "r", "scale": 1}]},
            "the state has no 'l'",
        ),
    ],
    ids=str,
)
@pytest.mark.parametrize("sealed", [True, False])
def test_manifests_that_lie(
    change: dict[str, object], said: str, sealed: bool, tiny: Path, place: Path
) -> None:
    shutil.copytree(tiny, place / "copy")
    path = place / "copy" / MANIFEST
    record = json.loads(path.read_text()) | change
    del record["sha256"]
    path.write_text(json.dumps({**record, "sha256": seal(record)} if sealed else record))
    check_refused(("train", "copy", "--data", "digits", *QUICK), (MANIFEST, said), place)


@pytest.mark.parametrize("damage", ["altered", "seal"])
def test_a_manifest_that_still_reads_is_not_trusted(damage: str, tiny: Path, place: Path) -> None:
    shutil.copytree(tiny, place / "copy")
    path = place / "copy" / MANIFEST
    text = path.read_text()
    old, new = (
        ('"scale": 0.0625', '"scale": 0.625') if damage == "altered" else ('"sha256": "', '"sha256": "0')
    )
    assert old in text
    path.write_text(text.replace(old, new))
    for command in (("train", "copy", "--data", "digits", *QUICK), ("summary", "copy"), ("verify", "copy")):
        check_refused(command, (MANIFEST, "it is not as it was written: its SHA-256 is another"), place)


def test_a_manifest_may_be_spaced_otherwise_or_have_no_seal_yet(tiny: Path, place: Path) -> None:
    shutil.copytree(tiny, place / "copy")
    path = place / "copy" / MANIFEST
    manifest = Bundle.open(tiny).manifest
    record = json.loads(path.read_text())
    path.write_text(json.dumps(record, sort_keys=True))
    assert Bundle.open(place / "copy").manifest == manifest
    del record["sha256"]
    path.write_text(json.dumps(record))
    assert Bundle.open(place / "copy").manifest == manifest


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize(
    "name", ["settings.toml", "metrics.csv", "bundle/train.onnx", "bundle/manifest.json"]
)
def test_damaged_runs(name: str, damage: str, finished: Path, place: Path) -> None:
    shutil.copytree(finished, place / "run")
    DAMAGES[damage](place / "run" / name)
    check_refused(("train", "--resume", "run", "--epochs", 2), ("run",), place)


def test_runs_that_are_none(finished: Path, place: Path) -> None:
    check_refused(("train", "--resume", "nothing"), ("nothing", "there is no such run"), place)
    check_refused(("train", "--resume", "."), ("this folder is no run",), place)
    check_refused(("train", "--resume", finished), ("finished its 1 epochs", "--epochs"), place)


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize(
    "command", [("eval",), ("export", "-o", "m.onnx"), ("predict", "image.png"), ("verify",)]
)
def test_damaged_states(command: tuple[str, ...], damage: str, finished: Path, place: Path) -> None:
    shutil.copytree(finished, place / "run")
    Image.new("L", (8, 8)).save(place / "image.png")
    name, *arguments = command
    for state in (place / "run").glob("*.safetensors"):
        DAMAGES[damage](state)
    said = "last.safetensors" if name == "verify" else "state" if damage == "missing" else "best.safetensors"
    check_refused((name, "run", *arguments), (said,), place)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("eval", "nothing", "--data", "digits"), ("nothing", "there is no such run or bundle")),
        (("eval", "no.onnx", "--data", "digits"), ("no.onnx", "there is no such model")),
        (("eval", "junk.onnx", "--data", "digits"), ("junk.onnx", "no ONNX model")),
        (("eval", "run", "--data", "nothing"), ("nothing", "no such folder")),
        (("predict", "run", "nothing.png"), ("nothing.png", "no such file")),
        (("predict", "run", "junk.onnx"), ("junk.onnx", "image")),
        (("predict", "junk.onnx", "image.png"), ("junk.onnx", "no ONNX model")),
        (("export", ".", "-o", "m.onnx"), ("neither a run",)),
        (("export", "run", "-o", "folder"), ("folder", "this is a folder")),
        (("export", "run", "-o", "image.png"), ("image.png", "no ONNX model")),
        (("export", "run", "-o", "image.png/m.onnx"), ("image.png", "can't be written")),
        (("export", "run", "-o", "/proc/nothing/m.onnx"), ("/proc/nothing", "can't be written")),
        (("export", "run", "-o", "m.onnx", "--opset", "5"), ("opset", "5")),
        (("verify", "nothing"), ("nothing", "there is no such run or bundle")),
    ],
    ids=lambda value: " ".join(value) if value[0] in ("eval", "predict", "export", "verify") else "",
)
def test_after_training(
    arguments: tuple[str, ...], said: tuple[str, ...], finished: Path, place: Path
) -> None:
    shutil.copytree(finished, place / "run")
    (place / "junk.onnx").write_bytes(b"junk")
    (place / "folder").mkdir()
    Image.new("L", (8, 8)).save(place / "image.png")
    check_refused(arguments, said, place)


# Where to write.


def occupied(place: Path) -> Path:
    (place / "there").mkdir()
    (place / "there" / "thesis.txt").write_text("precious")
    return place / "there"


def below_a_file(place: Path) -> Path:
    (place / "file").write_text("x")
    return place / "file" / "below"


def a_file(place: Path) -> Path:
    (place / "file").write_text("precious")
    return place / "file"


TARGETS: dict[str, tuple[Callable[[Path], Path], str]] = {
    "something else": (occupied, "holds something else"),
    "a file": (a_file, "a file of this name exists"),
    "below a file": (below_a_file, "can't be written"),
    "no place for files": (lambda place: Path("/proc/nothing/here"), "can't be written"),
}


@pytest.mark.parametrize(("target", "said"), TARGETS.values(), ids=TARGETS)
@pytest.mark.parametrize("command", ["build", "train"])
def test_output(command: str, target: Callable[[Path], Path], said: str, tiny: Path, place: Path) -> None:
    path = target(place)
    given = ("mnist",) if command == "build" else (tiny, "--data", "digits", *QUICK)
    check_refused((command, *given, "-o", path), (str(path), said, "-o"), place)


def test_a_run_is_never_written_over(finished: Path, tiny: Path, place: Path) -> None:
    shutil.copytree(finished, place / "run")
    command = ("train", tiny, "--data", "digits", "-o", "run", *QUICK)
    check_refused(command, ("there is a run here already", "--resume run"), place)


# While it runs.


def test_a_loss_that_diverges_keeps_the_last_good_state(tiny: Path, place: Path) -> None:
    result = call("train", tiny, "--data", "digits", "-o", "run", "--lr", "1e36", *QUICK)
    assert (result.status, result.out) == (1, "")
    (line,) = result.err.splitlines()
    assert line.startswith("error: run: the ")
    for words in ("at step ", "learning rate 1e+36", "last.safetensors", "--lr"):
        assert words in line
    assert {"last.safetensors", "bundle/train.onnx"} <= contents(place / "run").keys()
    assert not list(place.glob(".*"))


def test_a_device_that_is_not_there(tiny: Path, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("onnxruntime.get_available_providers", lambda: ["CPUExecutionProvider"])
    command = ("train", tiny, "--data", "digits", "-o", "run", "--device", "cuda")
    check_refused(command, ("onnxruntime-gpu", "--device cpu"), place)


# A few as processes of their own: nothing but the paragraph reaches the terminal.


def test_as_a_process(tiny: Path, place: Path) -> None:
    (place / "bad.py").write_text("program = (\n")
    pair(npz()[:300])(place / "data")
    for arguments, said in (
        (("build", "bad.py"), "bad.py:1"),
        (("train", tiny, "--data", "data", "-o", "run", "--json"), ".npz"),
    ):
        before = contents(place)
        result = spawn(*arguments)
        assert (result.status, result.out) == (1, "")
        assert result.err.startswith("error: ")
        assert result.err.count("\n") == 1
        assert said in result.err
        assert contents(place) == before
