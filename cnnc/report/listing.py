"""The runs in a folder side by side: what they came to, and in which settings they differ."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cnnc.errors import CnncError, RunError
from cnnc.report.record import Record
from cnnc.runtime.environment import sessions
from cnnc.runtime.run import LOCK, SETTINGS

_ASIDE = {"device", "threads", "workers", "eval_batch_size", "save_every", "on_bad_image"}
"""Settings that change no result."""


@dataclass(frozen=True)
class Listed:
    """A run in few words; `problem` says why a damaged one can't be read, and leaves the rest empty.

    `metric` is the one by which the best state is kept, `best` its best value on the held-out data, reached
    in `best_epoch`; `state` is ``running``, ``finished``, or how far it got.
    """

    path: str
    network: str = ""
    state: str = ""
    epochs: int = 0
    metric: str = ""
    better: str = ""
    best: float | None = None
    best_epoch: int | None = None
    last: dict[str, float] | None = None
    settings: dict[str, Any] | None = None
    problem: str = ""


RUNS = "runs"
"""The folder into which `cnnc train` writes runs that are given no name."""


def list_runs(folder: str | os.PathLike[str] | None = None) -> list[Listed]:
    """The runs in `folder`, or the run that it is, the oldest first. Raises RunError where there is none.

    None means the current folder, where runs that were given a name lie, and runs/, where the others do.
    """
    if folder is None:
        found = [*_runs_in(Path()), *(_runs_in(Path(RUNS)) if Path(RUNS).is_dir() else ())]
    elif Path(folder).is_dir():
        found = _runs_in(Path(folder))
    else:
        raise RunError(
            "there is no such folder.", where=str(folder), hint=f"`cnnc train` writes runs into {RUNS}/."
        )
    return [_listed(path) for path in sorted(found, key=_age)]


def differing(runs: Sequence[Listed]) -> list[str]:
    """The settings in which `runs` differ, in the order of `Settings`."""
    known = [run.settings for run in runs if run.settings is not None]
    names = [name for name in (known[0] if known else {}) if name not in _ASIDE]
    return [name for name in names if any(each.get(name) != known[0].get(name) for each in known[1:])]


def _runs_in(folder: Path) -> list[Path]:
    if (folder / SETTINGS).exists():
        return [folder]
    return [path for path in folder.iterdir() if (path / SETTINGS).exists()]


def _listed(path: Path) -> Listed:
    try:
        record = Record.read(path)
    except CnncError as error:
        return Listed(str(path), problem=str(error))
    metric, best = record.best_metric, record.best
    settings = asdict(record.run.settings)
    settings["options"] = dict(settings["options"])
    return Listed(
        str(path),
        network=record.run.bundle.manifest.name,
        state="running" if _locked(path) else record.state_in_words,
        epochs=len(record.rows),
        metric=metric.name,
        better=metric.better,
        best=best[f"{record.held_out}_{metric.name}"] if best else None,
        best_epoch=int(best["epoch"]) if best else None,
        last=dict(record.rows[-1]) if record.rows else None,
        settings=settings,
    )


def _age(path: Path) -> tuple[str, str]:
    """When the run began, as a sort key."""
    first = sessions(path)[:1]
    return (str(first[0].get("started", "")) if first else "", path.name)


def _locked(path: Path) -> bool:
    """Whether a process trains the run just now."""
    try:
        with (path / LOCK).open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False
