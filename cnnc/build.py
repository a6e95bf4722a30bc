"""From what the user names (a graph file, a graph that comes with cnnc, a bundle) to a bundle.

The compiler loads only where there is something to compile: training a bundle needs none of it.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from cnnc.bundle import MANIFEST, Bundle, write_bundle
from cnnc.errors import UsageError

if TYPE_CHECKING:
    from cnnc.class_weights import ClassWeights
    from cnnc.foreign.training import Wishes
    from cnnc.ir import Network
    from cnnc.memory import MemoryLimit
    from cnnc.step import Recipe, Revision


def build(
    source: str,
    output: str | os.PathLike[str] | None = None,
    *,
    options: Mapping[str, str] | None = None,
    seed: int = 0,
    wishes: Wishes | None = None,
    memory_limit: int | None = None,
    batch_size: int = 32,
    class_weights: ClassWeights | None = None,
    average: float | None = None,
) -> Bundle:
    """Compile the graph file `source` and write its bundle to `output` (None: ``<name>.bundle``).

    `options` are those of the graph file, `seed` draws the initial parameters. `memory_limit` is what
    training at `batch_size` may take, in bytes: see `cnnc.memory`. `class_weights` go into the losses, and
    `average` is the decay of a moving average (see `cnnc.step.Average`), in place of the graph file's. An
    ``.onnx`` model is built too, see `build_model`. Raises GraphFileError, UnsupportedError, ModelError for
    an ONNX model, UsageError for `options` or `wishes` that are not the source's, `class_weights` that don't
    fit or an `average` out of range, DataError where the data don't give the weights, BundleError where
    `output` can't be written.
    """
    if is_model(source):
        if options:
            raise UsageError(
                f"--set {next(iter(options))}=… is for graph files; {source} is a model.",
                hint="`cnnc build --help` lists what a model takes.",
            )
        return build_model(
            source,
            output,
            wishes=wishes,
            seed=seed,
            memory_limit=memory_limit,
            batch_size=batch_size,
            class_weights=class_weights,
            average=average,
        )[0]
    if wishes is not None:
        raise UsageError(
            f"{source} is a graph file, which says itself how it is trained.",
            hint="Change it there, or with --set where the file has an option.",
        )
    from cnnc.compiler import compile_program
    from cnnc.graph_file import load_program

    program = load_program(source, options)
    compiled = compile_program(
        program, seed=seed, memory=_limit(memory_limit, batch_size), revise=_revision(class_weights, average)
    )
    path = f"{program.name}.bundle" if output is None else output
    return write_bundle(path, compiled.manifest, compiled.graphs, compiled.state)


def is_model(source: str) -> bool:
    """Whether `source` is an ONNX model, by its name."""
    return Path(source).suffix == ".onnx"


def build_model(
    source: str,
    output: str | os.PathLike[str] | None = None,
    *,
    wishes: Wishes | None = None,
    seed: int = 0,
    memory_limit: int | None = None,
    batch_size: int = 32,
    class_weights: ClassWeights | None = None,
    average: float | None = None,
) -> tuple[Bundle, list[str]]:
    """Compile the ONNX model `source` as `wishes` say, write its bundle, and return it with notes.

    Raises ModelError, UnsupportedError, UsageError, BundleError where `output` can't be written.
    """
    from cnnc.foreign.training import compile_model

    compiled, notes = compile_model(
        source,
        wishes,
        seed=seed,
        memory=_limit(memory_limit, batch_size),
        revise=_revision(class_weights, average),
    )
    path = f"{compiled.manifest.name}.bundle" if output is None else output
    return write_bundle(path, compiled.manifest, compiled.graphs, compiled.state), notes


@contextmanager
def opened(
    source: str,
    *,
    options: Mapping[str, str] | None = None,
    seed: int | None = None,
    memory_limit: int | None = None,
    batch_size: int = 32,
    class_weights: ClassWeights | None = None,
    average: float | None = None,
) -> Iterator[Bundle]:
    """The bundle `source`, or one built from the graph file `source` that lasts as long as the context.

    Raises what `build` and `Bundle.open` raise, and UsageError for `options`, `memory_limit`,
    `class_weights` or `average` of a bundle, which keeps its own seed, too.
    """
    if is_bundle(source):
        if options:
            raise UsageError(
                f"--set {next(iter(options))}=… comes too late: {source} is a bundle, built already.",
                hint="Give the options to `cnnc build`.",
            )
        for what, given, option in (
            ("a memory limit comes", memory_limit, "--memory-limit and --batch-size"),
            ("class weights come", class_weights, "--class-weights and --data"),
            ("a moving average comes", average, "--average"),
        ):
            if given is not None:
                raise UsageError(
                    f"{what} too late: {source} is a bundle, built already.",
                    hint=f"Give {option} to `cnnc build`.",
                )
        yield Bundle.open(source)
        return
    with tempfile.TemporaryDirectory(prefix="cnnc-") as folder:
        yield build(
            source,
            Path(folder, "bundle"),
            options=options,
            seed=seed or 0,
            memory_limit=memory_limit,
            batch_size=batch_size,
            class_weights=class_weights,
            average=average,
        )


def _limit(limit: int | None, batch: int) -> MemoryLimit | None:
    if limit is None:
        return None
    from cnnc.memory import MemoryLimit

    return MemoryLimit(limit, batch)


def _revision(class_weights: ClassWeights | None, average: float | None) -> Revision | None:
    """What is asked for beside the source, in one."""
    if average is not None and not 0 <= average < 1:
        raise UsageError(
            f"the average's decay is {average:g}: it must be 0 or more and below 1.",
            hint="0.999 is a common one.",
        )
    if class_weights is None and average is None:
        return None

    def revise(network: Network, recipe: Recipe) -> Recipe:
        if class_weights is not None:
            recipe = class_weights.revise(network, recipe)
        return recipe if average is None else replace(recipe, average=float(average))

    return revise


def is_bundle(source: str) -> bool:
    """Whether `source` is meant as a bundle, whole or not. A folder may be called as a graph is."""
    path = Path(source)
    if path.suffix == ".bundle" or (path / MANIFEST).exists():
        return True
    if not path.is_dir():
        return False
    from cnnc.graph_file import known_graphs

    return source not in known_graphs()
