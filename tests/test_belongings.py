"""No command replaces a file of a bundle or a run; a link to an empty folder is as good as the folder."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from command_line import SMALL, check_refused, contents, done

from cnnc.bundle import GRAPHS, Bundle
from cnnc.runtime import Run
from cnnc.runtime.tuned import FOLDER, RECORD, STEP


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle (``bundle``) and a run."""
    folder = tmp_path_factory.mktemp("belongings")
    (folder / "graph.py").write_text(SMALL)
    done("build", folder / "graph.py", "-o", folder / "bundle")
    arguments = ["--data", "digits", "--limit", 40, "--epochs", 1, "-q"]
    done("train", folder / "bundle", "-o", folder / "run", *arguments)
    return folder


@pytest.fixture
def place(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "place"))


@pytest.mark.parametrize(
    "name",
    [
        *(f"run/bundle/{name}" for name in GRAPHS),
        *(f"bundle/{name}" for name in ("train.onnx", "lane.onnx", "state.safetensors", "manifest.json")),
        *(f"run/{name}" for name in ("last.safetensors", "epoch.safetensors", "lock", "settings.toml")),
        *(f"run/{name}" for name in ("summary.json", "times.csv", "environment.json", f"{FOLDER}/{STEP}")),
        "link/train.onnx",
    ],
)
@pytest.mark.parametrize("source", ["run", "bundle"])
def test_export_never_replaces_what_belongs_to_a_bundle_or_a_run(name: str, source: str, place: Path) -> None:
    (place / "link").symlink_to(place / "run" / "bundle")
    (place / "run" / FOLDER).mkdir()
    (place / "run" / FOLDER / RECORD).write_text("{}")
    if name.endswith(STEP):
        shutil.copyfile(place / "bundle" / "train.onnx", place / name)
    check_refused(["export", place / source, "-o", place / name], [str(place / name)], place)


def test_export_into_a_run_beside_its_own_files(place: Path) -> None:
    before = contents(place / "run")
    for _ in range(2):
        done("export", place / "run", "-o", place / "run" / "model.onnx", "--data", "digits")
    after = contents(place / "run")
    assert after.pop("model.onnx")
    assert after == before


@pytest.mark.parametrize("link", [False, True])
def test_build_never_replaces_the_bundle_of_a_run(link: bool, place: Path) -> None:
    output = place / "run" / "bundle"
    if link:
        (place / "link").symlink_to(output)
        output = place / "link"
    check_refused(["build", place / "graph.py", "-o", output], ["the bundle that a run trains"], place)


def test_a_link_to_an_empty_folder_is_built_into(place: Path) -> None:
    (place / "folder").mkdir()
    (place / "link").symlink_to("folder")
    for _ in range(2):  # the second one replaces the first
        done("build", place / "graph.py", "-o", place / "link")
        assert (place / "link").is_symlink()
        Bundle.open(place / "folder")


def test_a_link_to_an_empty_folder_is_trained_into(place: Path) -> None:
    (place / "folder").mkdir()
    (place / "link").symlink_to(place / "folder")
    arguments = ["--data", "digits", "--limit", 40, "--epochs", 1, "-q"]
    result = done("train", place / "bundle", "-o", place / "link", *arguments)
    assert f"run {place / 'link'}:" in result.out
    assert (place / "link").is_symlink()
    assert Run.open(place / "folder").settings.epochs == 1
    done("train", "--resume", place / "link", "--epochs", 2, "-q")


@pytest.mark.parametrize("target", ["nowhere", "link"])
@pytest.mark.parametrize("command", [("build", "graph.py"), ("train", "bundle", "--data", "digits")])
def test_a_link_to_nothing_is_a_file(command: tuple[str, ...], target: str, place: Path) -> None:
    (place / "link").symlink_to(place / target)
    name, source, *rest = command
    check_refused([name, place / source, *rest, "-o", place / "link"], ["a file of this name exists"], place)
