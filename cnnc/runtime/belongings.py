"""The files that belong to a bundle, a run or a tuned step, and are never another command's to replace."""

from __future__ import annotations

import os
from pathlib import Path

from cnnc.bundle import GRAPHS, JOIN, LANE, MANIFEST, RUN_SETTINGS, STATE
from cnnc.errors import CnncError
from cnnc.runtime.checkpoint import BEST, EPOCH, LAST, PREVIOUS
from cnnc.runtime.environment import ENVIRONMENT
from cnnc.runtime.history import METRICS, TIMES
from cnnc.runtime.run import LOCK, SUMMARY
from cnnc.runtime.tuned import RECORD, STEP

_CHECKPOINTS = (LAST, PREVIOUS, BEST, EPOCH)
_OWNED = {
    MANIFEST: ("bundle", {MANIFEST, STATE, *GRAPHS, LANE, JOIN}),
    RUN_SETTINGS: ("run", {RUN_SETTINGS, METRICS, TIMES, SUMMARY, LOCK, ENVIRONMENT, *_CHECKPOINTS}),
    RECORD: ("tuned step", {RECORD, STEP, LANE, JOIN}),
}
"""By the file that tells what a folder is: what it is, and the names of the files that belong to it."""


def check_unowned(path: str | os.PathLike[str], kind: type[CnncError]) -> None:
    """Raise `kind` where a file at `path` is, or would be, one of a bundle, a run or a tuned step."""
    path = Path(path)
    for sign, (what, names) in _OWNED.items():
        if path.name in names and (path.parent / sign).exists():
            raise kind(
                f"this is a file of the {what} in {path.parent}, which would be damaged.",
                where=str(path),
                hint="Choose another name.",
            )
