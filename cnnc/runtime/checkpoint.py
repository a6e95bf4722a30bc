"""Checkpoints: the whole state and how far the run had got, as one safetensors file.

::

    last.safetensors             where a resumed run goes on
    last.previous.safetensors    the one before, in case the last is damaged
    best.safetensors             the state with the best test metric

The metadata hold the progress and a SHA-256 over it and every tensor, so that an altered file is found.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from cnnc.bundle import Array, Manifest, encode_state, read_state, state_mismatch
from cnnc.errors import RunError
from cnnc.runtime.files import write_whole
from cnnc.runtime.session import Sums

LAST, PREVIOUS, BEST = "last.safetensors", "last.previous.safetensors", "best.safetensors"
_KEY, _VERSION = "cnnc-checkpoint", 1


@dataclass(frozen=True)
class Progress:
    """How far a run has got: enough to go on in the middle of an epoch, bit for bit.

    `epoch` counts finished epochs, `batch` the finished batches of the one under way and `sums` its metrics
    so far; `step` counts steps of the whole run; `history` is the digest of metrics.csv.
    """

    epoch: int = 0
    batch: int = 0
    step: int = 0
    history: str = ""
    sums: Sums = field(default_factory=dict)


@dataclass(frozen=True)
class Checkpoint:
    """A state and the progress it belongs to."""

    state: Mapping[str, Array]
    progress: Progress


def save(path: Path, checkpoint: Checkpoint, *, keep: Path | None = None) -> None:
    """Write a checkpoint whole or not at all; the one that stood there becomes `keep`. Raises RunError."""
    record = {"version": _VERSION, **asdict(checkpoint.progress), "sha256": _digest(checkpoint)}
    try:
        write_whole(path, encode_state(checkpoint.state, {_KEY: json.dumps(record)}), keep=keep)
    except OSError as error:
        raise RunError(
            f"the checkpoint can't be written: {error.strerror or error}.",
            where=str(path),
            hint="The one before it is kept; make room, then go on with --resume.",
        ) from error


def load(path: Path, manifest: Manifest) -> Checkpoint:
    """Read a checkpoint of the bundle `manifest` describes. Raises RunError where it is not whole."""
    try:
        state, metadata = read_state(path)
        record = json.loads(metadata[_KEY])
        if (version := record.pop("version")) != _VERSION:
            raise ValueError(f"its version is {version}, this cnnc reads version {_VERSION}")
        digest = record.pop("sha256")
        sums = {name: (total, count) for name, (total, count) in record.pop("sums").items()}
        checkpoint = Checkpoint(state, Progress(**record, sums=sums))
    except FileNotFoundError:
        raise RunError("there is no such checkpoint.", where=str(path)) from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise RunError(f"this is no whole checkpoint: {error}.", where=str(path)) from error
    if digest != _digest(checkpoint):
        raise RunError("this checkpoint is altered: its SHA-256 is another.", where=str(path))
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


def _digest(checkpoint: Checkpoint) -> str:
    """SHA-256 over the progress and every tensor's name, dtype, shape and bytes."""
    digest = hashlib.sha256(json.dumps(asdict(checkpoint.progress)).encode())
    for name, array in sorted(checkpoint.state.items()):
        digest.update(f"\n{name} {array.dtype.name} {list(array.shape)}\n".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()
