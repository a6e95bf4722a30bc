"""What may keep cnnc from working on this machine: a list of findings, each with how to mend it."""

from __future__ import annotations

import locale
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

EXTRAS = {
    "tensorboard": ("tensorboardX", "TensorBoard files (train --tensorboard)"),
    "openvino": ("openvino", "another runtime for cnnc verify"),
    "tract": ("tract", "another runtime for cnnc verify"),
}
LOW_DISK = 1_000_000_000
"""With less room than this, in bytes, a run of a larger network may not fit."""


@dataclass(frozen=True)
class Finding:
    """Something looked at: ``ok``, a ``note`` that is good to know, or a ``problem`` with a `hint`."""

    level: Literal["ok", "note", "problem"]
    what: str
    hint: str = ""


def examine(folder: str | os.PathLike[str] = ".") -> list[Finding]:
    """Look at Python, packages, execution providers, processors, memory and the disk at `folder`.

    A check that itself fails is a problem, not an exception.
    """
    findings: list[Finding] = []
    for check in CHECKS:
        try:
            findings += check(Path(folder))
        except Exception as error:
            name = check.__name__.strip("_").replace("_", " ")
            findings.append(Finding("problem", f"{name}: {type(error).__name__}: {error}"))
    return findings


def _python(folder: Path) -> Iterator[Finding]:
    yield Finding("ok", f"Python {'.'.join(map(str, sys.version_info[:3]))} at {sys.executable}")
    if sys.prefix == sys.base_prefix:
        yield Finding("note", "this is no virtual environment", "`python3 -m venv .venv` makes one.")


def _packages(folder: Path) -> Iterator[Finding]:
    """Every required package in a version that will do."""
    good = []
    for requirement in metadata.requires("cnnc") or ():
        if "extra ==" in requirement:
            continue
        match = re.match(r"([\w.-]+)\s*>=\s*([\d.]+)", requirement)
        if match is None:
            continue
        name, least = match.groups()
        try:
            found = metadata.version(name)
        except metadata.PackageNotFoundError:
            if name != "onnxruntime":  # told with the providers: another package may stand in for it
                yield Finding("problem", f"{name} is not installed.", f"`pip install '{name}>={least}'`")
            continue
        if _numbers(found) < _numbers(least):
            hint = f"`pip install -U '{name}>={least}'`"
            yield Finding("problem", f"{name} {found} is older than {least}.", hint)
        else:
            good.append(f"{name} {found}")
    yield Finding("ok", f"packages: {', '.join(good)}")


def _onnxruntime(folder: Path) -> Iterator[Finding]:
    """Which package it is, whether only one, and whether it computes."""
    installed = {}
    for name in ("onnxruntime", "onnxruntime-gpu"):
        try:
            installed[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    if len(installed) > 1:
        yield Finding(
            "problem",
            f"both {' and '.join(f'{name} {version}' for name, version in installed.items())} are installed; "
            "they write the same files, and one hides the other.",
            "`pip uninstall onnxruntime onnxruntime-gpu`, then install the one you want.",
        )
    import onnxruntime as ort

    if not installed:
        yield Finding("note", f"ONNX Runtime {ort.__version__} comes from a package that cnnc does not know")
    yield Finding("ok", f"ONNX Runtime {ort.__version__} with {', '.join(ort.get_available_providers())}")
    from cnnc.errors import ProviderError
    from cnnc.runtime.providers import CUDA, choose

    _compute()
    yield Finding("ok", "a graph runs on the CPU")
    if CUDA in ort.get_available_providers():
        try:
            yield Finding("ok", f"a graph may run on {choose('cuda').words}")
        except ProviderError as error:
            yield Finding("problem", error.what, error.hint)


def _compute() -> None:
    """One small graph on ONNX Runtime. Raises where the answer is wrong."""
    import numpy as np
    import onnx

    from cnnc.opset import IR_VERSION, OPSET
    from cnnc.runtime.providers import choose, open_session

    head = f'<ir_version: {IR_VERSION}, opset_import: ["": {OPSET}]>'
    text = f"{head} g (float[2] x) => (float[2] y) {{ y = Relu(x) }}"
    session = open_session(onnx.parser.parse_model(text).SerializeToString(), choose("cpu"), 1)
    (found,) = session.run(None, {"x": np.array([-1, 2], np.float32)})
    if found.tolist() != [0, 2]:
        raise ArithmeticError(f"Relu of -1 and 2 is {found.tolist()} here")


def _machine(folder: Path) -> Iterator[Finding]:
    from cnnc.runtime.environment import machine
    from cnnc.runtime.providers import cpu_threads

    facts = machine()
    processor = f", {facts['processor']}" if facts["processor"] else ""
    yield Finding("ok", f"{facts['system']}{processor}, {facts['memory_gb']} GB of memory")
    threads = cpu_threads()
    yield Finding(
        "ok", f"{threads} threads inside an operator, of {facts['cpus']} processors this process may use"
    )
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        if value := os.environ.get(name):
            yield Finding("note", f"{name} is {value}: it sets NumPy's threads, not those of ONNX Runtime")


def _disk(folder: Path) -> Iterator[Finding]:
    for what, place in (("here", folder), ("for temporary files", Path(tempfile.gettempdir()))):
        free = shutil.disk_usage(place).free
        words = f"{free / 1e9:,.1f} GB free {what} ({place.resolve()})"
        if free < LOW_DISK:
            yield Finding("problem", f"only {words}", "Make room: a run keeps copies of its parameters.")
        elif not os.access(place, os.W_OK):
            yield Finding("problem", f"no permission to write {what} ({place.resolve()})", "Work elsewhere.")
        else:
            yield Finding("ok", words)


def _extras(folder: Path) -> Iterator[Finding]:
    for extra, (package, purpose) in EXTRAS.items():
        try:
            yield Finding("ok", f"{package} {metadata.version(package)}: {purpose}")
        except metadata.PackageNotFoundError:
            name = f"cnnc[{extra}]" if extra == "tensorboard" else package
            yield Finding("note", f"{package} is not installed: {purpose}", f"`pip install '{name}'`")


def _text(folder: Path) -> Iterator[Finding]:
    encoding = locale.getpreferredencoding(False)
    if encoding.lower().replace("-", "") != "utf8":
        yield Finding("note", f"the locale's encoding is {encoding}: other letters are shown as escapes")


CHECKS: tuple[Callable[[Path], Iterator[Finding]], ...] = (
    _python, _packages, _onnxruntime, _machine, _disk, _extras, _text,
)  # fmt: skip


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version.split("+")[0])[:3])
