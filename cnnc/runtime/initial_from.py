"""A state to begin with that comes from elsewhere: another run, a bundle, a state file, an ONNX model."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from cnnc.bundle import MANIFEST, Array, Bundle, Manifest, StateEntry, averaged, read_state
from cnnc.errors import BundleError, ModelError, RunError
from cnnc.runtime.checkpoint import BEST, LAST, load
from cnnc.runtime.run import SETTINGS, Run

SHOWN = 5


def start_from(
    path: str | os.PathLike[str], manifest: Manifest, state: Mapping[str, Array]
) -> tuple[dict[str, Array], str]:
    """`state` with the parameters and running statistics of what lies at `path`, and a note of what they are.

    They are found by name; one of another shape or that isn't there stays as it is in `state`, and the note
    says so. What the optimizer keeps begins anew. `path` is a run (its best state, or else its last, averaged
    where the run averages), a bundle, a safetensors file or an ONNX model, whose initializers count. Raises
    RunError, BundleError or ModelError where it can't be read, RunError where nothing of it fits.
    """
    found, where = _read(Path(path))
    wanted = manifest.entries("parameter", "buffer")
    taken = {entry.name: found[entry.name] for entry in wanted if not _misfit(entry, found)}
    if not any(entry.name in taken for entry in manifest.entries("parameter")):
        raise RunError(
            f"it has no parameter of this network: {'; '.join(_misfit(e, found) for e in wanted[:SHOWN])}.",
            where=where,
            hint="Parameters are found by their names; `cnnc summary` lists the network's.",
        )
    started = {**state, **{name: np.asarray(values) for name, values in taken.items()}}
    for entry in manifest.state:
        if entry.initial["kind"] == "copy":
            started[entry.name] = started[str(entry.of)]
    note = f"{len(taken)} of {len(wanted)} parameters and running statistics are those of {where}."
    if left := [_misfit(entry, found) for entry in wanted if entry.name not in taken]:
        more = f"; and {len(left) - SHOWN} more" if len(left) > SHOWN else ""
        note += f" New: {'; '.join(left[:SHOWN])}{more}."
    return started, note


def _misfit(entry: StateEntry, found: Mapping[str, Array]) -> str:
    """Why a tensor can't be taken, in words; empty where it can."""
    if entry.name not in found:
        return f"{entry.name}, which it lacks"
    array = found[entry.name]
    if array.shape != entry.shape or array.dtype.name != entry.dtype:
        theirs, ours = f"{array.dtype.name} {list(array.shape)}", f"{entry.dtype} {list(entry.shape)}"
        return f"{entry.name}, {theirs} there and {ours} here"
    return ""


def _read(path: Path) -> tuple[Mapping[str, Array], str]:
    """The tensors at `path`, and where exactly they were found."""
    if (path / SETTINGS).exists():
        manifest = Run.open(path).bundle.manifest
        file = path / (BEST if (path / BEST).exists() else LAST)
        return averaged(manifest, load(file, manifest).state), str(file)
    if (path / MANIFEST).exists():
        return Bundle.open(path).initial_state(), str(path)
    if not path.is_file():
        raise RunError(
            "there is no run, bundle, state file or ONNX model to start from.",
            where=str(path),
            hint="Name what `cnnc train` or `cnnc build` wrote, a .safetensors file or an .onnx model.",
        )
    if path.suffix == ".onnx":
        return _initializers(path), str(path)
    try:
        return read_state(path)[0], str(path)
    except (OSError, ValueError) as error:
        raise BundleError(f"the state can't be read: {error}.", where=str(path)) from error


def _initializers(path: Path) -> dict[str, Array]:
    import onnx  # only a run that starts from a model pays for this import
    from onnx import numpy_helper

    try:
        model = onnx.load(path)
        return {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    except Exception as error:  # protobuf's errors and onnx's own have no common base
        raise ModelError(f"this is no ONNX model that can be read: {error}", where=str(path)) from error
