"""``cnnc train``: a graph file or a bundle to a trained run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cnnc.cli.options import BadImage, Data, Debug, Json, Set, Threads, Workers, graph_options
from cnnc.cli.output import counted, metric_words, print_json, print_note, print_notes
from cnnc.errors import UsageError

if TYPE_CHECKING:
    from cnnc.bundle import Manifest
    from cnnc.data import Dataset
    from cnnc.runtime import Settings, Summary

DEFAULT_SOURCE = "digits"
SHOWN = 5
"""So many bad images are named."""


def train(
    source: Annotated[
        str | None,
        typer.Argument(metavar="SOURCE|BUNDLE", help="A graph file, its name, or a bundle (digits)."),
    ] = None,
    data: Data = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", metavar="RUN", help="The run directory (runs/NAME-1, …).")
    ] = None,
    epochs: Annotated[
        int | None, typer.Option(metavar="N", help="Passes over the training data (10).")
    ] = None,
    batch_size: Annotated[int | None, typer.Option(metavar="N", help="Examples a step (32).")] = None,
    lr: Annotated[
        float | None, typer.Option(metavar="RATE", help="The base learning rate (the graph file's).")
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(metavar="N", help="Draws initial parameters, order and dropout (the bundle's, else 0)."),
    ] = None,
    device: Annotated[
        str | None,
        typer.Option(metavar="auto|cpu|cuda", help="Where to run; auto takes CUDA where it works (auto)."),
    ] = None,
    threads: Threads = None,
    workers: Workers = None,
    on_bad_image: BadImage = None,
    set_: Set = None,
    resume: Annotated[
        Path | None, typer.Option(metavar="RUN", help="Go on where this run stopped, with its settings.")
    ] = None,
    tune: Annotated[
        bool | None,
        typer.Option(
            "--tune/--no-tune", help="Tune the step for this machine (where the run is long enough to gain)."
        ),
    ] = None,
    exact: Annotated[
        bool, typer.Option("--exact", help="Tune without forms that round otherwise: no Winograd.")
    ] = False,
    overfit_one_batch: Annotated[
        bool,
        typer.Option("--overfit-one-batch", help="Only check that one batch can be learned; write nothing."),
    ] = False,
    quiet: Annotated[bool, typer.Option("-q", "--quiet", help="Show no progress.")] = False,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Train a network. Without SOURCE: a small one, on the handwritten digits that come with cnnc.

    Without --data, a network called as a known data set trains on it. With --resume, --epochs, --device,
    --threads, --workers and --on-bad-image change the run's settings, and --data says where its data lie now.
    """
    settings: dict[str, Any] = {"epochs": epochs, "device": device, "threads": threads}
    settings |= {"workers": workers, "on_bad_image": on_bad_image}
    if resume is None:
        settings |= {"batch_size": batch_size, "lr": lr, "seed": seed, "tune": tune, "exact": exact or None}
        if overfit_one_batch:
            return _overfit(source or DEFAULT_SOURCE, data, set_, _given(settings), json)
        result = _train(source or DEFAULT_SOURCE, data, output, set_, _given(settings), quiet)
    else:
        fixed = {
            "--overfit-one-batch": overfit_one_batch or None,
            "SOURCE": source,
            "-o": output,
            "--batch-size": batch_size,
            "--lr": lr,
            "--seed": seed,
            "--tune": tune,
            "--exact": exact or None,
        }
        if refused := [*_given(fixed), *(["--set"] if set_ else [])]:
            raise UsageError(
                f"{refused[0]} can't be given with --resume: a run keeps what it began with.",
                hint="Start another run without --resume.",
            )
        result = _resume(resume, data, _given(settings), quiet)
    if json:
        print_json(result.record())
    else:
        _print(result)


def _train(
    source: str,
    data: str | None,
    output: Path | None,
    pairs: list[str] | None,
    given: dict[str, Any],
    quiet: bool,
) -> Summary:
    from cnnc.build import opened
    from cnnc.cli.progress import progress
    from cnnc.data import default_for
    from cnnc.report import RunReport
    from cnnc.runtime import Settings, train

    Settings(**given)  # what is out of range is told before anything is built
    with opened(source, options=graph_options(pairs), seed=given.get("seed")) as bundle:
        settings = Settings(data=data or default_for(bundle.manifest), **given)
        dataset = _loaded(bundle.manifest, settings)
        with skipped_told(dataset), progress(quiet) as shown:
            return train(bundle, dataset, settings, output, [shown, RunReport(dataset, print_note)])


def _overfit(
    source: str, data: str | None, pairs: list[str] | None, given: dict[str, Any], json: bool
) -> None:
    from cnnc.build import opened
    from cnnc.cli.overfit import overfit
    from cnnc.data import default_for
    from cnnc.runtime import Settings

    Settings(**given)
    with opened(source, options=graph_options(pairs), seed=given.get("seed")) as bundle:
        settings = Settings(data=data or default_for(bundle.manifest), **given)
        overfit(bundle, _loaded(bundle.manifest, settings), settings, json)


def _resume(path: Path, data: str | None, given: dict[str, Any], quiet: bool) -> Summary:
    from cnnc.cli.progress import progress
    from cnnc.report import RunReport
    from cnnc.runtime import Run, resume

    run = Run.open(path)
    dataset = _loaded(run.bundle.manifest, replace(run.settings, data=data or run.settings.data, **given))
    with skipped_told(dataset), progress(quiet) as shown:
        return resume(run, dataset, [shown, RunReport(dataset, print_note)], **given)


def _loaded(manifest: Manifest, settings: Settings) -> Dataset:
    from cnnc.data import load_for

    return load_for(manifest, settings.data, on_bad_image=settings.on_bad_image, workers=settings.workers)


@contextmanager
def skipped_told(dataset: Dataset) -> Iterator[None]:
    """At the end, however it comes, say which images were skipped."""
    try:
        yield
    finally:
        if problems := dataset.problems:
            print_notes([f"{counted(len(problems), 'bad image')} skipped in the training and test data:"])
            print_notes(f"{problem.where}: {problem.what}" for problem in problems[:SHOWN])
            if len(problems) > SHOWN:
                print_notes([f"… and {len(problems) - SHOWN:,} more: `cnnc data check` lists all."])


def _given(settings: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in settings.items() if value is not None}


def _print(summary: Summary) -> None:
    done = f"{counted(summary.epochs, 'epoch')}, {counted(summary.steps, 'step')}"
    typer.echo(f"run {summary.run}: {done} in {summary.seconds:.1f} s")
    if summary.step_ms_median is not None and summary.images_per_second is not None:
        speed = f"{summary.step_ms_median:.2f} ms a step (median), {summary.images_per_second:,.0f} images/s"
        typer.echo(f"{speed}, at most {summary.peak_memory_mb:,.0f} MB of memory")
    typer.echo(f"best epoch {summary.best_epoch}: test {metric_words(summary.best)}")
    typer.echo(f"test {metric_words(summary.test)}")
    typer.echo(f"report {summary.run / 'report.html'}")
