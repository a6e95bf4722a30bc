"""``cnnc train``: a graph file or a bundle to a trained run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cnnc.cli.options import (
    Average,
    BadImage,
    ClassWeights,
    Data,
    Debug,
    Json,
    MemoryLimit,
    Set,
    Threads,
    Workers,
    graph_options,
    memory_bytes,
)
from cnnc.cli.output import memory_words, print_json, print_note
from cnnc.cli.train_options import (
    Best,
    Config,
    InitFrom,
    Limit,
    MinDelta,
    OnNan,
    Patience,
    Plateau,
    PlateauFactor,
    Resume,
    SaveEvery,
    Validation,
    changes,
    with_config,
)
from cnnc.cli.train_output import Shown, print_summary, skipped_told
from cnnc.errors import UsageError

if TYPE_CHECKING:
    from cnnc.bundle import Manifest
    from cnnc.data import Dataset
    from cnnc.runtime import Run, Settings, Summary

DEFAULT_SOURCE = "digits"


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
    memory_limit: MemoryLimit = None,
    set_: Set = None,
    class_weights: ClassWeights = None,
    average: Average = None,
    validation: Validation = None,
    limit: Limit = None,
    best: Best = None,
    patience: Patience = None,
    min_delta: MinDelta = None,
    plateau: Plateau = None,
    plateau_factor: PlateauFactor = None,
    on_nan: OnNan = None,
    save_every: SaveEvery = None,
    init_from: InitFrom = None,
    config: Config = None,
    resume: Resume = None,
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
    tensorboard: Annotated[
        bool, typer.Option("--tensorboard", help="Write event files into RUN/tensorboard too.")
    ] = False,
    quiet: Annotated[bool, typer.Option("-q", "--quiet", help="Show no progress.")] = False,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Train a network. Without SOURCE: a small one, on the handwritten digits that come with cnnc.

    Without --data, a network called as a known data set trains on it. With --resume, --epochs, --patience,
    --device, --threads, --workers, --on-bad-image, --on-nan and --save-every change the run's settings, and
    --data says where its data lie now; anything else must be as the run has it.
    """
    shown = Shown(quiet, tensorboard)
    settings: dict[str, Any] = {
        "class_weights": class_weights,
        "average": average,
        "epochs": epochs,
        "batch_size": batch_size,
        "lr": lr,
        "seed": seed,
        "device": device,
        "threads": threads,
        "workers": workers,
        "on_bad_image": on_bad_image,
        "validation": validation,
        "limit": limit,
        "best": best,
        "patience": patience,
        "min_delta": min_delta,
        "plateau": plateau,
        "plateau_factor": plateau_factor,
        "on_nan": on_nan,
        "save_every": save_every,
        "tune": tune,
        "exact": exact or None,
    }
    given = {name: value for name, value in settings.items() if value is not None}
    if resume is None:
        sources = {"source": source, "data": data, "init_from": init_from and str(init_from)}
        given |= {name: value for name, value in sources.items() if value is not None}
        wanted = with_config(config, given, set_)
        if overfit_one_batch:
            return _overfit(wanted, json)
        result = _train(wanted, output, memory_bytes(memory_limit), shown)
    else:
        unfit: dict[str, Any] = {"-o": output, "--config": config, "--init-from": init_from}
        unfit["--memory-limit"] = memory_limit
        unfit["--overfit-one-batch"] = overfit_one_batch or None
        if refused := [name for name, value in unfit.items() if value is not None]:
            raise UsageError(
                f"{refused[0]} can't be given with --resume: a run keeps what it began with.",
                hint="Start another run without --resume.",
            )
        result = _resume(resume, source, data, set_, given, shown)
    if json:
        print_json(result.record())
    else:
        print_summary(result, shown.report)


def _train(given: dict[str, Any], output: Path | None, memory: int | None, shown: Shown) -> Summary:
    from cnnc.build import opened
    from cnnc.data import default_for
    from cnnc.runtime import Settings, train

    settings = Settings(**given)  # what is out of range is told before anything is built
    source = settings.source or DEFAULT_SOURCE
    built: dict[str, Any] = {"memory_limit": memory, "batch_size": settings.batch_size}
    with opened(source, **_building(settings, given.get("data")), **built) as bundle:
        if bundle.manifest.memory is not None:
            print_note(memory_words(bundle.manifest.memory))
        place = given.get("data") or default_for(bundle.manifest)
        settings = replace(settings, source=_absolute(source), data=place)
        dataset = _loaded(bundle.manifest, settings)
        with skipped_told(dataset), shown.callbacks(dataset) as callbacks:
            return train(bundle, dataset, settings, output, callbacks)


def _building(settings: Settings, data: str | None) -> dict[str, Any]:
    """What of the settings says how a source is built."""
    building: dict[str, Any] = {
        "options": settings.options,
        "seed": settings.seed,
        "average": settings.average,
    }
    if settings.class_weights is not None:
        from cnnc.class_weights import ClassWeights

        building["class_weights"] = ClassWeights(
            settings.class_weights, data, settings.on_bad_image, settings.workers, settings.share
        )
    return building


def _overfit(given: dict[str, Any], json: bool) -> None:
    from cnnc.build import opened
    from cnnc.cli.overfit import overfit
    from cnnc.data import default_for
    from cnnc.runtime import Settings

    settings = Settings(**given)
    source = settings.source or DEFAULT_SOURCE
    with opened(source, **_building(settings, given.get("data"))) as bundle:
        settings = replace(settings, data=given.get("data") or default_for(bundle.manifest))
        overfit(bundle, _loaded(bundle.manifest, settings), settings, json)


def _resume(
    path: Path,
    source: str | None,
    data: str | None,
    pairs: list[str] | None,
    given: dict[str, Any],
    shown: Shown,
) -> Summary:
    from cnnc.runtime import Run, resume

    run = Run.open(path)
    changed = changes(run, given)
    if source or pairs:
        _check_same_graph(run, source or run.settings.source or DEFAULT_SOURCE, graph_options(pairs), data)
    dataset = _loaded(run.bundle.manifest, replace(run.settings, data=data or run.settings.data, **changed))
    with skipped_told(dataset), shown.callbacks(dataset) as callbacks:
        return resume(run, dataset, callbacks, **changed)


def _check_same_graph(run: Run, source: str, options: dict[str, str], data: str | None) -> None:
    """Raise UsageError where what the user names is not what the run trains."""
    from cnnc.build import is_bundle, opened
    from cnnc.runtime.difference import bundle_difference

    settings = replace(run.settings, options=options)
    if is_bundle(source):  # which has weights and an average of its own
        settings = replace(settings, class_weights=None, average=None)
    with opened(source, **_building(settings, data or settings.data)) as bundle:
        difference = bundle_difference(run.bundle.manifest, bundle.manifest)
    if difference:
        raise UsageError(
            f"the run trains another graph than {source}: {difference}.",
            where=str(run.path),
            hint=f"`cnnc train --resume {run.path}` alone goes on with the run's own; "
            f"`cnnc train {source} --init-from {run.path}` starts another run with its parameters.",
        )


def _loaded(manifest: Manifest, settings: Settings) -> Dataset:
    from cnnc.data import load_for

    return load_for(manifest, settings.data, on_bad_image=settings.on_bad_image, workers=settings.workers)


def _absolute(source: str) -> str:
    """`source` as it is found from any folder; the name of a graph that comes with cnnc stays one."""
    path = Path(source)
    is_path = path.suffix or len(path.parts) > 1 or (path / "manifest.json").exists()
    return str(path.resolve()) if is_path else source
