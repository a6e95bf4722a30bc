"""Training a bundle on a data set: a new run, or one that goes on."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from cnnc.bundle import Array, Bundle
from cnnc.data import Dataset, Split, check
from cnnc.data.parts import limited
from cnnc.errors import DataError, RunError
from cnnc.initial import draw
from cnnc.runtime.checkpoint import BEST, Checkpoint, load, load_newest, save
from cnnc.runtime.criterion import Criterion
from cnnc.runtime.disk import check_room, state_bytes
from cnnc.runtime.fingerprint import data_difference, fingerprint
from cnnc.runtime.history import METRICS, History, Row, columns
from cnnc.runtime.initial_from import start_from
from cnnc.runtime.interrupts import stop_requests
from cnnc.runtime.loop import Loop
from cnnc.runtime.providers import choose
from cnnc.runtime.reporter import Callback, Callbacks, Summary
from cnnc.runtime.run import SUMMARY, Run, check_free
from cnnc.runtime.session import EvalSession, StepSession
from cnnc.runtime.settings import Settings
from cnnc.runtime.tuned import FOLDER, fits, kept
from cnnc.runtime.tuning import tuned_for


def train(
    bundle: Bundle,
    dataset: Dataset,
    settings: Settings,
    run: str | os.PathLike[str] | None = None,
    callbacks: Iterable[Callback] = (),
) -> Summary:
    """Train `bundle` on `dataset` in a new run directory `run` (None: runs/<bundle>-<n>).

    Raises, before anything is written: UsageError for settings out of range, ProviderError, DataError where
    the data don't fit the bundle, RunError where `run` is not free or the disk too full. Later: DivergedError
    where the loss, a metric or the state stops being finite (the last good state stays), Interrupted after
    Ctrl-C or SIGTERM (the state is saved).
    """
    if run is not None:
        check_free(run)
    provider = choose(settings.device)
    settings = settings.resolved(bundle.manifest, provider.device)
    check(dataset, bundle.manifest)
    parts = _parts(dataset, settings)
    state, note = start_state(bundle, settings.seed), ""
    if settings.init_from:
        state, note = start_from(settings.init_from, bundle.manifest, state)
    told = Callbacks(callbacks)
    step = StepSession(bundle, provider, settings.threads, state=state)
    if tuned := tuned_for(bundle, settings, len(parts[0]), step, told.on_tune):
        step = StepSession(bundle, provider, settings.threads, state=state, tuned=tuned)
    settings = replace(settings, tune=tuned is not None)
    evaluation = EvalSession(bundle, provider, settings.threads)
    header = columns(bundle.manifest, settings.held_out)
    new = Run.create(run, bundle, settings, fingerprint(dataset), state, header, tuned)
    with new.locked(), stop_requests() as stop:
        progress = load_newest(new.path, bundle.manifest)[0].progress
        history = History(new.path / METRICS, progress)
        notes = (note,) if note else ()
        return Loop(new, dataset, *parts, step, evaluation, progress, history, stop, told, notes).go()


def resume(
    run: Run | str | os.PathLike[str],
    dataset: Dataset,
    callbacks: Iterable[Callback] = (),
    **changes: Any,
) -> Summary:
    """Go on where `run` stopped, with the same data; on the CPU bit for bit as if it had not stopped.

    `changes` are those of the settings `CHANGEABLE` that are to be others from now on; None is no change. On
    another device or with other threads the run goes on too, and a note says that its bits may differ. Raises
    RunError where the run is damaged, in use or finished, DataError where the data are others, and what
    `train` raises.
    """
    run = run if isinstance(run, Run) else Run.open(run)
    manifest = run.bundle.manifest
    given = {name: value for name, value in changes.items() if value is not None}
    if unknown := given.keys() - CHANGEABLE:
        raise TypeError(f"a run keeps its {', '.join(sorted(unknown))}")
    settings = replace(run.settings, **given)
    with run.locked(), stop_requests() as stop:
        checkpoint, note = load_newest(run.path, manifest)
        progress = checkpoint.progress
        begun = progress.epoch + (progress.batch > 0)
        if settings.epochs < begun:
            raise RunError(
                f"this run has begun {begun} epochs: it can't end after {settings.epochs}.",
                where=str(run.path),
                hint="Give it more with --epochs.",
            )
        history = History(run.path / METRICS, progress)
        _check_unfinished(run, settings, history)
        check(dataset, manifest)
        if difference := data_difference(run.data, fingerprint(dataset)):
            raise DataError(
                f"the data are not those the run began with: {difference}.",
                where=str(run.path),
                hint=f"Start another run from its state: `cnnc train … --init-from {run.path}`.",
            )
        provider = choose(settings.device)
        settings = settings.resolved(manifest, provider.device)
        check_room(run.path, state_bytes(manifest))
        mended = _mend_best(run, settings, checkpoint, history)
        notes = tuple(filter(None, (note, _other_machine(run.settings, settings), mended)))
        parts = _parts(dataset, settings)
        tuned = kept(run.path) if provider.device == "cpu" else None
        if tuned is None and settings.tune and provider.device == "cpu":
            notes += (_gone(run),)
        elif tuned is not None and not fits(tuned):
            tuned, notes = None, (*notes, _ELSEWHERE)
        step = StepSession(run.bundle, provider, settings.threads, state=checkpoint.state, tuned=tuned)
        evaluation = EvalSession(run.bundle, provider, settings.threads)
        run = run.with_settings(settings)
        told = Callbacks(callbacks)
        return Loop(run, dataset, *parts, step, evaluation, progress, history, stop, told, notes).go()


_ELSEWHERE = (
    "the run's step was tuned on another processor or ONNX Runtime: it goes on with the portable step, and "
    "its bits may differ."
)

CHANGEABLE = frozenset(
    {"epochs", "device", "threads", "patience", "on_nan", "save_every", "workers", "on_bad_image"}
)
"""The settings that a run may go on with others of; its bits depend on the rest."""


def _gone(run: Run) -> str:
    """A note where a run began with a tuned step that it has no more."""
    return (
        f"{run.path / FOLDER} is gone, the tuned step this run began with: it goes on with the portable "
        "step, and its bits may differ from those of a run not stopped."
    )


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


def _parts(dataset: Dataset, settings: Settings) -> tuple[Split, Split, Split]:
    """The examples to train on, those by which the best state is chosen, and the test data."""
    train, held_out = settings.share.of(dataset.train)
    test = limited(dataset.test, settings.limit, settings.share.seed)
    return train, test if held_out is None else held_out, test


def _check_unfinished(run: Run, settings: Settings, history: History) -> None:
    """Raise RunError where nothing is left to do."""
    if not (run.path / SUMMARY).exists():
        return
    epochs = len(history.rows)
    if epochs >= settings.epochs:
        raise RunError(
            f"this run has finished its {settings.epochs} epochs.",
            where=str(run.path),
            hint="Give it more with --epochs.",
        )
    if Criterion.of(settings, run.bundle.manifest).met(history.rows):
        raise RunError(
            f"this run has finished: it stopped early, after {epochs} epochs.",
            where=str(run.path),
            hint="Give it more with --patience.",
        )


def _other_machine(before: Settings, now: Settings) -> str:
    """A note where the bits may come out otherwise than without the stop."""
    changed = [
        f"{words} {getattr(before, name)} before, {getattr(now, name)} now"
        for name, words in (("device", "device"), ("threads", "threads"))
        if getattr(before, name) != getattr(now, name)
    ]
    if not changed:
        return ""
    return f"{'; '.join(changed)}: the run goes on, but its bits may differ from those of one not stopped."


def _mend_best(run: Run, settings: Settings, checkpoint: Checkpoint, history: History) -> str:
    """Write the best state where a crash came between it and its checkpoint; a note where it can't be had."""
    if not history.rows:
        return ""
    best: Row = Criterion.of(settings, run.bundle.manifest).best(history.rows)
    try:
        found = load(run.path / BEST, run.bundle.manifest).progress.epoch
        problem = f"{run.path / BEST}: this is the state of epoch {found}, not of {best['epoch']}, the best."
    except RunError as error:
        found, problem = -1, str(error)
    if found == best["epoch"]:
        return ""
    if (checkpoint.progress.epoch, checkpoint.progress.batch) == (best["epoch"], 0):
        save(run.path / BEST, checkpoint)
        return ""
    return f"{problem} It is written anew when an epoch is better."
