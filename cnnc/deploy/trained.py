"""What the commands after training start from: a bundle and the state to use it with."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, get_args

from cnnc.bundle import MANIFEST, Array, Bundle, averaged
from cnnc.errors import RunError, UsageError, did_you_mean
from cnnc.runtime.checkpoint import BEST, LAST, Checkpoint, load, load_newest
from cnnc.runtime.run import SETTINGS, Run

Source = Bundle | Run | str | os.PathLike[str]
"""A bundle or a run, open or as the path of its folder."""
Which = Literal["best", "last", "raw"]
"""A run's state with the best test metric, or its last: with averages in place of what they are of, where the
run keeps some, as in its own evaluations. Or the last as the optimizer left it, raw."""

_OTHERWISE = "Restore it from a copy, or take the run's last state with --which last."


@dataclass(frozen=True, eq=False)
class Trained:
    """A bundle with the initial state, or a run's bundle with one of its states.

    The manifest of a run's has the class names of the data it was trained on, where the network has none.
    """

    bundle: Bundle
    state: dict[str, Array]
    run: Run | None = None

    @classmethod
    def open(cls, source: Source, which: Which = "best") -> Trained:
        """Open a run with its `which` state, or a bundle. Raises RunError, BundleError, UsageError."""
        if which not in get_args(Which):
            raise UsageError(
                f"there is no state '{which}' of a run.", hint=did_you_mean(which, get_args(Which))
            )
        if not isinstance(source, Bundle | Run):
            source = open_folder(source)
        if isinstance(source, Bundle):
            return cls(source, source.initial_state())
        manifest = source.manifest
        state = (_best(source) if which == "best" else load(source.path / LAST, manifest)).state
        bundle = replace(source.bundle, manifest=manifest)
        return cls(bundle, dict(state) if which == "raw" else averaged(manifest, state), source)

    @property
    def where(self) -> str:
        """The folder of the run or the bundle, for messages."""
        return str(self.run.path if self.run else self.bundle.path)


def _best(run: Run) -> Checkpoint:
    """The best state. Raises RunError, which says why there is none and what to take instead."""
    path = run.path / BEST
    if path.exists():
        try:
            return load(path, run.bundle.manifest)
        except RunError as error:
            raise RunError(error.what, where=error.where, hint=_OTHERWISE) from error
    if _has_ended_an_epoch(run):
        raise RunError("the run's best state is missing.", where=str(path), hint=_OTHERWISE)
    raise RunError(
        "this run has no best state: no epoch of it has ended.",
        where=str(run.path),
        hint=f"Go on with `cnnc train --resume {run.path}`, or take its last state with --which last.",
    )


def _has_ended_an_epoch(run: Run) -> bool:
    try:
        return load_newest(run.path, run.bundle.manifest)[0].progress.epoch > 0
    except RunError:  # none is whole, so that nobody knows
        return True


def open_folder(path: str | os.PathLike[str]) -> Bundle | Run:
    """The run or the bundle in a folder, none of its states read. Raises RunError, BundleError."""
    folder = Path(path)
    if (folder / SETTINGS).exists():
        return Run.open(folder)
    if (folder / MANIFEST).exists():
        return Bundle.open(folder)
    if not folder.exists():
        what = "there is no such run or bundle."
    elif not folder.is_dir():
        what = "this is a file; a run or a bundle is a folder."
    else:
        what = f"this folder is neither a run (it has no {SETTINGS}) nor a bundle (it has no {MANIFEST})."
    raise RunError(what, where=str(folder), hint="Name a folder that `cnnc train` or `cnnc build` wrote.")
