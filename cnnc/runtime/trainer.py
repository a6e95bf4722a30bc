"""Training a bundle on a data set: a new run, or one that goes on."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from cnnc.bundle import Array, Bundle
from cnnc.data import Dataset, OnBadImage, check
from cnnc.errors import DataError, RunError
from cnnc.initial import draw
from cnnc.runtime.checkpoint import load_newest
from cnnc.runtime.history import History
from cnnc.runtime.interrupts import stop_requests
from cnnc.runtime.loop import Loop, columns
from cnnc.runtime.providers import choose
from cnnc.runtime.reporter import Callback, Callbacks, Summary
from cnnc.runtime.run import METRICS, SUMMARY, Run, check_free, fingerprint
from cnnc.runtime.session import EvalSession, StepSession
from cnnc.runtime.settings import Settings


def train(
    bundle: Bundle,
    dataset: Dataset,
    settings: Settings,
    run: str | os.PathLike[str] | None = None,
    callbacks: Iterable[Callback] = (),
) -> Summary:
    """Train `bundle` on `dataset` in a new run directory `run` (None: runs/<bundle>-<n>).

    Raises, before anything is written: UsageError for settings out of range, ProviderError, DataError where
    the data don't fit the bundle, RunError where `run` is not free. Later: DivergedError where the loss,
    a metric or the state stops being finite (the last good state stays), Interrupted after Ctrl-C or
    SIGTERM (the state is saved).
    """
    if run is not None:
        check_free(run)
    provider = choose(settings.device)
    settings = settings.resolved(bundle.manifest, provider.device)
    check(dataset, bundle.manifest)
    state, scalars = start_state(bundle, settings.seed), settings.scalars(bundle.manifest)
    step = StepSession(bundle, provider, settings.threads, state=state, scalars=scalars)
    evaluation = EvalSession(bundle, provider, settings.threads)
    new = Run.create(run, bundle, settings, fingerprint(dataset), state, columns(bundle.manifest))
    with new.locked(), stop_requests() as stop:
        progress = load_newest(new.path, bundle.manifest)[0].progress
        history = History(new.path / METRICS, progress)
        return Loop(new, dataset, step, evaluation, progress, history, stop, Callbacks(callbacks)).go()


def resume(
    run: Run | str | os.PathLike[str],
    dataset: Dataset,
    callbacks: Iterable[Callback] = (),
    *,
    epochs: int | None = None,
    device: str | None = None,
    threads: int | None = None,
    workers: int | None = None,
    on_bad_image: OnBadImage | None = None,
) -> Summary:
    """Go on where `run` stopped, with the same data; on the CPU bit for bit as if it had not stopped.

    `epochs` and what follows it replace the run's settings where given. Raises RunError where the run is
    damaged, in use or finished, DataError where the data are others, and what `train` raises.
    """
    run = run if isinstance(run, Run) else Run.open(run)
    manifest = run.bundle.manifest
    changes: dict[str, Any] = {"epochs": epochs, "device": device, "threads": threads}
    changes |= {"workers": workers, "on_bad_image": on_bad_image}
    settings = replace(run.settings, **{name: value for name, value in changes.items() if value is not None})
    with run.locked(), stop_requests() as stop:
        checkpoint, note = load_newest(run.path, manifest)
        begun = checkpoint.progress.epoch + (checkpoint.progress.batch > 0)
        if settings.epochs < begun:
            raise RunError(
                f"this run has begun {begun} epochs: it can't end after {settings.epochs}.",
                where=str(run.path),
                hint="Give it more with --epochs.",
            )
        if checkpoint.progress.epoch == settings.epochs and (run.path / SUMMARY).exists():
            raise RunError(
                f"this run has finished its {settings.epochs} epochs.",
                where=str(run.path),
                hint="Give it more with --epochs.",
            )
        history = History(run.path / METRICS, checkpoint.progress)
        check(dataset, manifest)
        if (found := fingerprint(dataset)) != run.data:
            raise DataError(
                f"the data are not those the run began with: {found}; it had {run.data}.", where=str(run.path)
            )
        provider = choose(settings.device)
        settings = settings.resolved(manifest, provider.device)
        scalars = settings.scalars(manifest)
        step = StepSession(run.bundle, provider, settings.threads, state=checkpoint.state, scalars=scalars)
        evaluation = EvalSession(run.bundle, provider, settings.threads)
        run, notes = run.with_settings(settings), (note,) if note else ()
        progress = checkpoint.progress
        return Loop(run, dataset, step, evaluation, progress, history, stop, Callbacks(callbacks), notes).go()


def start_state(bundle: Bundle, seed: int | None) -> dict[str, Array]:
    """The bundle's initial state; for another seed than the bundle's own, what is drawn is drawn anew."""
    state = bundle.initial_state()
    if seed is None or seed == bundle.manifest.seed:
        return state
    for entry in bundle.manifest.state:
        if entry.initial["kind"] == "copy":
            state[entry.name] = state[str(entry.of)]
        elif entry.initial["kind"] != "stored":
            state[entry.name] = draw(entry.initial, entry.shape, entry.dtype, seed, entry.name)
    return state
