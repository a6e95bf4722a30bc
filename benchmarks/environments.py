"""An environment for each peer, outside cnnc's own: what it holds, and how it is made."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / ".benchmarks"


class SetupError(Exception):
    """An environment can't be made, or is not there."""


@dataclass(frozen=True)
class Environment:
    """Packages under the names they have in the public registry; `newest` is the last Python they run on."""

    packages: tuple[str, ...]
    newest: tuple[int, int] = (3, 13)


ENVIRONMENTS = {
    "pytorch": Environment(("torch==2.13.0", "numpy")),
    "keras": Environment(("keras", "tensorflow-cpu")),
    "jax": Environment(("jax[cpu]", "optax")),
    # The last release for training. It wants torch beside it, and the modules it forgets to ask for.
    "onnxruntime-training": Environment(
        ("onnxruntime-training==1.19.2", "torch==2.13.0", "numpy<2", "onnx", "cerberus", "h5py"), (3, 11)
    ),
}


def make(name: str, folder: Path = FOLDER) -> None:
    """Make, or make anew, the environment `name` in `folder`. Raises SetupError."""
    environment, path = ENVIRONMENTS[name], folder / name
    try:
        subprocess.run([_base_python(environment), "-m", "venv", "--clear", path], check=True)
        subprocess.run([path / "bin/pip", "install", "--quiet", *environment.packages], check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        shutil.rmtree(path, ignore_errors=True)
        raise SetupError(f"the environment of {name} can't be made: {error}") from error


def python(name: str | None, folder: Path = FOLDER) -> Path:
    """The interpreter of environment `name`; None is the one that runs this. Raises SetupError."""
    path = Path(sys.executable) if name is None else folder / name / "bin/python"
    if not path.exists():
        raise SetupError(f"{name} has no environment in {folder}: `python -m benchmarks setup {name}`")
    return path


def _base_python(environment: Environment) -> str:
    """An interpreter that the packages support: this one, or an older one on the PATH."""
    if sys.version_info[:2] <= environment.newest:
        return sys.executable
    wanted = "python{}.{}".format(*environment.newest)
    if found := shutil.which(wanted):
        return os.path.realpath(found)
    raise SetupError(f"it needs {wanted}, which is not on the PATH")
