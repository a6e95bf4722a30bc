"""The state of a bundle, and of a checkpoint: named arrays in a safetensors file."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import load as load_safetensors
from safetensors.numpy import save as save_safetensors

from cnnc.bundle.manifest import Manifest

Array = npt.NDArray[Any]
T = TypeVar("T")


def encode_state(state: Mapping[str, Array], metadata: Mapping[str, str] | None = None) -> bytes:
    """A state as the bytes of a safetensors file (deterministic: the same state gives the same bytes)."""
    return save_safetensors(
        {name: np.ascontiguousarray(array).reshape(array.shape) for name, array in state.items()},
        dict(metadata) if metadata else None,
    )


def read_state(path: str | os.PathLike[str]) -> tuple[dict[str, Array], dict[str, str]]:
    """Read a safetensors file: its arrays and its metadata. Raises OSError or ValueError."""
    data = Path(path).read_bytes()
    try:
        arrays = load_safetensors(data)
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"it is no whole safetensors file ({error})") from error
    return arrays, dict(header.get("__metadata__", {}))


def state_mismatch(manifest: Manifest, state: Mapping[str, Array]) -> str:
    """What keeps `state` from being a state of this bundle, in a sentence; empty where nothing does."""
    expected = {entry.name: entry for entry in manifest.state}
    if missing := sorted(expected.keys() - state.keys()):
        return f"the state lacks {', '.join(missing[:5])}."
    if extra := sorted(state.keys() - expected.keys()):
        return f"the state has {', '.join(extra[:5])}, which the manifest does not know."
    for name, entry in expected.items():
        array = state[name]
        if array.shape != entry.shape or array.dtype.name != entry.dtype:
            return (
                f"state '{name}' is {array.dtype.name} {list(array.shape)}, "
                f"the manifest says {entry.dtype} {list(entry.shape)}."
            )
    return ""


def averaged(manifest: Manifest, state: Mapping[str, T]) -> dict[str, T]:
    """The state with each average in place of what it is of: what is evaluated and deployed."""
    return {**state, **{str(entry.of): state[entry.name] for entry in manifest.entries("average")}}


def merged(manifest: Manifest, state: Mapping[str, Array]) -> dict[str, Array]:
    """The state with each adapter added to its weight: what infer.onnx has."""
    whole = dict(state)
    for adapter in manifest.adapters:
        weight = whole[adapter.weight]
        product = whole[adapter.left].astype(np.float64) @ whole[adapter.right]
        whole[adapter.weight] = (weight + adapter.scale * product.reshape(weight.shape)).astype(weight.dtype)
    return whole
