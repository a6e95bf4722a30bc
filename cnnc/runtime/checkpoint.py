"""Checkpoints: the whole state and how far the run had got, as one safetensors file.

::

    last.safetensors             where a resumed run goes on
    last.previous.safetensors    the one before, in case the last is damaged
    best.safetensors             the state with the best metric
    epoch.safetensors            the state the epoch under way began with, for a run that may roll back

The metadata hold the progress and a manifest: the SHA-256 of every tensor, and one of progress and manifest
themselves, so that an altered file is found and the altered tensor named.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np

from cnnc.bundle import Array, Manifest, encode_state, read_state, seal, state_mismatch
from cnnc.errors import RunError, os_errors_as
from cnnc.runtime.files import write_whole
from cnnc.runtime.session import Sums

LAST, PREVIOUS, BEST = "last.safetensors", "last.previous.safetensors", "best.safetensors"
EPOCH = "epoch.safetensors"
_KEY, _VERSION = "cnnc-checkpoint", 2


@dataclass(frozen=True)
class Progress:
    """How far a run has got: enough to go on in the middle of an epoch, bit for bit.

    `epoch` counts finished epochs, `batch` the finished batches of the one under way and `sums` its metrics
    so far; `step` counts batches of the whole run, of which `skipped` were left out, the last `in_a_row` of
    them one after the other; `rollbacks` counts returns to the start of an epoch. `history` is the digest of
    metrics.csv, from which everything else that decides (the best epoch, patience, the rate) is made.
    """

    epoch: int = 0
    batch: int = 0
    step: int = 0
    history: str = ""
    sums: Sums = field(default_factory=dict)
    skipped: int = 0
    in_a_row: int = 0
    rollbacks: int = 0


@dataclass(frozen=True)
class Checkpoint:
    """A state and the progress it belongs to."""

    state: Mapping[str, Array]
    progress: Progress


def encode(checkpoint: Checkpoint) -> bytes:
    """The checkpoint as the bytes of its file."""
    record = {
        "version": _VERSION,
        "progress": asdict(checkpoint.progress),
        "tensors": {name: _digest(array) for name, array in sorted(checkpoint.state.items())},
    }
    return encode_state(checkpoint.state, {_KEY: json.dumps({**record, "sha256": seal(record)})})


def save(path: Path, checkpoint: Checkpoint | bytes, *, keep: Path | None = None) -> None:
    """Write a checkpoint (or an encoded one) whole or not at all; the one there before becomes `keep`.

    Raises RunError.
    """
    with os_errors_as(
        RunError,
        "the checkpoint can't be written",
        where=path,
        hint="The one before it is kept; make room, then go on with --resume.",
    ):
        write_whole(path, checkpoint if isinstance(checkpoint, bytes) else encode(checkpoint), keep=keep)


def load(path: Path, manifest: Manifest) -> Checkpoint:
    """Read a checkpoint of the bundle `manifest` describes. Raises RunError where it is not whole."""
    try:
        state, metadata = read_state(path)
        record = json.loads(metadata[_KEY])
        if (version := record["version"]) != _VERSION:
            raise ValueError(f"its version is {version}, this cnnc reads version {_VERSION}")
        written = record.pop("sha256")
        if written != seal(record) or record["tensors"].keys() != state.keys():
            raise ValueError("its metadata are altered: their SHA-256 is another")
        for name, digest in record["tensors"].items():
            if digest != _digest(state[name]):
                raise ValueError(f"tensor '{name}' is altered: its SHA-256 is another")
        progress = record["progress"]
        sums = {name: (total, count) for name, (total, count) in progress.pop("sums").items()}
        checkpoint = Checkpoint(state, Progress(**progress, sums=sums))
    except FileNotFoundError:
        raise RunError("there is no such checkpoint.", where=str(path)) from None
    except OSError as error:
        raise RunError(
            f"this checkpoint can't be read: {error.strerror or error}.", where=str(path)
        ) from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise RunError(f"this is no whole checkpoint: {error}.", where=str(path)) from error
    if problem := state_mismatch(manifest, state):
        raise RunError(f"this checkpoint is not of this run's bundle: {problem}", where=str(path))
    return checkpoint


def load_newest(folder: Path, manifest: Manifest) -> tuple[Checkpoint, str]:
    """The last whole checkpoint in `folder`, and a note where a damaged one had to be passed over.

    Raises RunError where none is whole.
    """
    try:
        return load(folder / LAST, manifest), ""
    except RunError as damaged:
        try:
            checkpoint = load(folder / PREVIOUS, manifest)
        except RunError as other:
            raise RunError(
                f"{damaged.what} Nor can {PREVIOUS} be used: {other.what}",
                where=damaged.where,
                hint="Restore one of them from a copy, or train anew.",
            ) from damaged
        return checkpoint, f"{damaged} Going on from {PREVIOUS}, step {checkpoint.progress.step}."


def _digest(array: Array) -> str:
    """SHA-256 of a tensor: its dtype, its shape and its bytes."""
    digest = hashlib.sha256(f"{array.dtype.name} {list(array.shape)}\n".encode())
    digest.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return digest.hexdigest()
