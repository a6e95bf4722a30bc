"""``cnnc bench``: how fast a step is, what memory it takes, and which layers take the time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cnnc.cli.model_options import InputSize, sizes
from cnnc.cli.options import Debug, Device, Json, Set, Threads, graph_options
from cnnc.cli.output import print_json
from cnnc.errors import UsageError

if TYPE_CHECKING:
    from cnnc.profiling import Report, Subject
    from cnnc.profiling.report import Profile


def bench(
    source: Annotated[
        str,
        typer.Argument(
            metavar="BUNDLE|RUN|SOURCE|MODEL",
            help="A bundle, a run, a graph file or its name, or an .onnx model.",
            show_default=False,
        ),
    ],
    output: Annotated[
        Path | None, typer.Option("-o", "--output", metavar="PICTURE", help="Draw a PNG, SVG or PDF, too.")
    ] = None,
    pass_: Annotated[
        str | None,
        typer.Option(
            "--pass", metavar="train|eval|infer", help="What to measure (train; of a model, infer)."
        ),
    ] = None,
    batch_size: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Examples at once (the run's, else 32).")
    ] = None,
    steps: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Steps to time (those of 3 seconds, at least 10).")
    ] = None,
    device: Device = "auto",
    threads: Threads = None,
    input_size: InputSize = None,
    set_: Set = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Measure a step on random data: time, images a second, peak memory, and the time of each layer.

    A process of its own runs the step, so that the memory is the step's alone. The times of layers come from
    ONNX Runtime's profiler.
    """
    from cnnc.profiling import bench as measure
    from cnnc.profiling import draw
    from cnnc.profiling.picture import check_picture

    if output is not None:
        check_picture(output)
    with _subject(source, pass_, batch_size, sizes(input_size), graph_options(set_)) as subject:
        report = measure(subject, device=device, threads=threads, steps=steps)
    if output is not None:
        draw(report, output)
    if json:
        print_json({**report.record(), **({"picture": str(output)} if output else {})})
        return
    _print(report)
    if output is not None:
        typer.echo(f"picture: {output}")


@contextmanager
def _subject(
    source: str,
    task: str | None,
    batch: int | None,
    example: tuple[int, ...] | None,
    options: dict[str, str],
) -> Iterator[Subject]:
    """What `source` names: a model as it stands, a run's bundle, or a bundle, built where it is not one."""
    from cnnc.build import is_model, opened
    from cnnc.profiling import Subject
    from cnnc.runtime import Run
    from cnnc.runtime.run import SETTINGS
    from cnnc.runtime.tuned import kept

    if is_model(source) and task in (None, "infer"):
        if not Path(source).is_file():
            raise UsageError(f"there is no model '{source}'.")
        yield Subject(Path(source).stem, "infer", Path(source), None, batch or 32, example)
    elif Path(source, SETTINGS).exists():
        run = Run.open(source)
        size, tuned = batch or run.settings.batch_size, kept(run.path)
        applies = tuned is not None and task in (None, "train") and size == tuned.conditions.batch
        graph = tuned.path if tuned is not None and applies else None
        yield Subject.of_bundle(run.bundle, task or "train", size, example=example, graph=graph)
    else:
        with opened(source, options=options) as bundle:
            fixed = bundle.manifest.input.shape[0]
            size = batch or (fixed if isinstance(fixed, int) else 32)
            yield Subject.of_bundle(bundle, task or "train", size, example=example)


def _print(report: Report) -> None:
    low, high = report.spread
    megabytes = report.peak_memory / 1e6
    what = {"train": "training step", "eval": "evaluation", "infer": "inference"}[report.task]
    typer.echo(f"{report.name}: {what} of {report.batch} on {report.provider}, {report.threads} threads")
    typer.echo(
        f"{report.median:.2f} ms (median of {len(report.milliseconds)}; most between {low:.2f} and "
        f"{high:.2f}), {report.images_per_second:,.0f} images/s, at most {megabytes:,.0f} MB of memory"
    )
    if report.profile is not None:
        _print_profile(report.profile)


def _print_profile(profile: Profile) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), show_footer=True)
    table.add_column("layer", "total", overflow="fold")
    for part, total in profile.parts.items():
        table.add_column(part, f"{total:.3f}", justify="right")
    assigned = profile.kernels - profile.unassigned
    table.add_column("ms", f"{assigned:.3f}", justify="right", no_wrap=True)
    table.add_column("share", f"{assigned / profile.kernels:.0%}", justify="right", no_wrap=True)
    for row in profile.rows:
        cells = (f"{row.parts[part]:.3f}" if part in row.parts else "" for part in profile.parts)
        table.add_row(row.layer, *cells, f"{row.total:.3f}", f"{row.total / profile.kernels:.1%}")
    Console(highlight=False, markup=False).print(table)
    by_flow, lost = profile.by_flow / profile.kernels, profile.unassigned / profile.kernels
    shares = (f"{name} {ms / profile.kernels:.0%}" for name, ms in list(profile.operators.items())[:6])
    typer.echo(f"operators: {', '.join(shares)}")
    typer.echo(
        f"Under the profiler, {profile.nodes} kernels took {profile.kernels:.2f} ms and what is between them "
        f"{profile.between:.2f} ms. Of the kernels' time, {by_flow:.1%} was assigned "
        f"to a layer by the nodes around it, and {lost:.1%} to none."
    )
