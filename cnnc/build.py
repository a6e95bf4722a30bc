"""From what the user names (a graph file, a graph that comes with cnnc, a bundle) to a bundle.

The compiler loads only where there is something to compile: training a bundle needs none of it.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from cnnc.bundle import MANIFEST, Bundle, write_bundle
from cnnc.errors import ModelError, UsageError


def build(
    source: str,
    output: str | os.PathLike[str] | None = None,
    *,
    options: Mapping[str, str] | None = None,
    seed: int = 0,
) -> Bundle:
    """Compile the graph file `source` and write its bundle to `output` (None: ``<name>.bundle``).

    `options` are those of the graph file, `seed` draws the initial parameters. Raises GraphFileError,
    UnsupportedError, ModelError for an ONNX model, BundleError where `output` can't be written.
    """
    if Path(source).suffix == ".onnx":
        raise ModelError(
            "cnnc can't build a bundle from an ONNX model.",
            where=source,
            hint="Write the network as a graph file; those in the folder of cnnc.graphs are examples.",
        )
    from cnnc.compiler import compile_program
    from cnnc.graph_file import load_program

    program = load_program(source, options)
    compiled = compile_program(program, seed=seed)
    path = f"{program.name}.bundle" if output is None else output
    return write_bundle(path, compiled.manifest, compiled.graphs, compiled.state)


@contextmanager
def opened(
    source: str, *, options: Mapping[str, str] | None = None, seed: int | None = None
) -> Iterator[Bundle]:
    """The bundle `source`, or one built from the graph file `source` that lasts as long as the context.

    Raises what `build` and `Bundle.open` raise, and UsageError for `options` of a bundle. A bundle keeps its
    own seed.
    """
    if _is_bundle(source):
        if options:
            raise UsageError(
                f"--set {next(iter(options))}=… comes too late: {source} is a bundle, built already.",
                hint="Give the options to `cnnc build`.",
            )
        yield Bundle.open(source)
        return
    with tempfile.TemporaryDirectory(prefix="cnnc-") as folder:
        yield build(source, Path(folder, "bundle"), options=options, seed=seed or 0)


def _is_bundle(source: str) -> bool:
    """Whether `source` is meant as a bundle, whole or not. A folder may be called as a graph is."""
    path = Path(source)
    if path.suffix == ".bundle" or (path / MANIFEST).exists():
        return True
    if not path.is_dir():
        return False
    from cnnc.graph_file import known_graphs

    return source not in known_graphs()
