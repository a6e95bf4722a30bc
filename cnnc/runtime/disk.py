"""Whether there is room on the disk for what a run will write: told before it starts."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np

from cnnc.bundle import STATE, Bundle, Manifest
from cnnc.errors import RunError

SPARE = 2**20
"""For the rows, the settings and the manifest."""


def room_for_run(bundle: Bundle, rolls_back: bool = False) -> int:
    """Bytes that a new run of `bundle` takes: its files, two last states, the best, one being written."""
    files = sum((bundle.path / name).stat().st_size for name in (*bundle.manifest.graphs, STATE))
    return files + (4 + rolls_back) * state_bytes(bundle.manifest) + SPARE


def state_bytes(manifest: Manifest) -> int:
    """The size of a checkpoint, nearly."""
    return sum(entry.size * np.dtype(entry.dtype).itemsize for entry in manifest.state)


def check_room(folder: Path, needed: int) -> None:
    """Raise RunError unless `needed` bytes are free where `folder` is, or will be."""
    place = next((parent for parent in (folder, *folder.absolute().parents) if parent.exists()), Path("/"))
    try:
        usage = shutil.disk_usage(place)
    except OSError:  # writing will say what is wrong
        return
    if usage.total and usage.free < needed:  # of no size at all are /proc and its kind
        raise RunError(
            f"the run needs {_megabytes(needed)} of the disk, of which {_megabytes(usage.free)} are free.",
            where=str(folder),
            hint="Make room, or choose another disk with -o.",
        )


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.0f} MB"
