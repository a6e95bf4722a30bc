"""What all contestants of a row are given: the same initial state and batches, and cnnc its bundles."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.architectures import ARCHITECTURES
from benchmarks.contestants import Contestant
from benchmarks.networks import Row, program
from benchmarks.workers.protocol import BATCHES, STATE, Job, Task
from cnnc.bundle import FunctionSpec, write_bundle
from cnnc.compiler import compile_program
from cnnc.errors import UsageError, did_you_mean

BATCHES_IN_TURN = 2
"""Few, so that the loss of a batch met again shows that the steps between did the same to the parameters."""


class Inputs:
    """The files of one row, in `folder`."""

    def __init__(self, row: Row, task: Task, threads: int, folder: Path) -> None:
        self.row, self.task, self.threads, self.folder = row, task, threads, folder
        self._program = program(row.network)
        self._default = compile_program(self._program)
        initial = self._default.manifest.entries("parameter", "buffer")
        state: dict[str, Any] = {entry.name: self._default.state[entry.name] for entry in initial}
        np.savez(folder / STATE, **state)
        architecture, random = ARCHITECTURES[row.network], np.random.default_rng(0)
        images = random.random((BATCHES_IN_TURN, row.batch, *architecture.image), dtype=np.float32)
        labels = random.integers(0, architecture.classes, (BATCHES_IN_TURN, row.batch))
        np.savez(folder / BATCHES, images=images, labels=labels)

    def job(self, contestant: Contestant) -> Job:
        """The contestant's job. Raises CnncError where cnnc can't be compiled as its options say."""
        options = dict(contestant.options)
        if not contestant.is_peer and "bundle" not in options:
            compiled = self._default
            if options:
                compiled = compile_program(
                    self._program, choices=choices(options, compiled.manifest.functions)
                )
            path = self.folder / f"{len(list(self.folder.glob('*.bundle')))}.bundle"
            write_bundle(path, compiled.manifest, compiled.graphs, compiled.state)
            options = {"bundle": str(path)}
        return Job(self.row.network, self.task, self.threads, str(self.folder), options)


def choices(options: Mapping[str, str], functions: tuple[FunctionSpec, ...]) -> dict[str, str]:
    """Bodies by gradient node, from `options` by gradient op or node. Raises UsageError."""
    ops, nodes = {f.op for f in functions}, {f.node for f in functions}
    for name in options.keys() - ops - nodes:
        raise UsageError(f"the network has no gradient op '{name}'.", hint=did_you_mean(name, ops))
    by_op = {f.node: options[f.op] for f in functions if f.op in options}
    return by_op | {f.node: options[f.node] for f in functions if f.node in options}
