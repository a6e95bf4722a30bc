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
from cnnc.bundle import Bundle, FunctionSpec, write_bundle
from cnnc.compiler import compile_program
from cnnc.deploy.export import export
from cnnc.errors import UsageError, did_you_mean
from cnnc.tuner import tune

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
        if not contestant.is_peer:
            seconds = options.pop("tune", None)
            bundle = Path(options["bundle"]) if "bundle" in options else self._build(options)
            options = {"bundle": str(bundle)}
            if seconds is not None:
                options["tuned"] = str(self._tune(bundle, float(seconds)))
            if self.task == "infer":
                options["model"] = str(self._new("onnx"))
                export(bundle, options["model"])
        return Job(self.row.network, self.task, self.threads, str(self.folder), options)

    def _build(self, options: Mapping[str, str]) -> Path:
        """A bundle with the bodies that `options` names, and otherwise the default ones."""
        compiled = self._default
        if options:
            bodies = choices(options, compiled.manifest.functions)
            compiled = compile_program(self._program, choices=bodies)
        return write_bundle(self._new("bundle"), compiled.manifest, compiled.graphs, compiled.state).path

    def _tune(self, bundle: Path, seconds: float) -> Path:
        """The folder of the step tuned for the row's batch size on this machine, as `cnnc train` takes it."""
        found = tune(Bundle.open(bundle), self.row.batch, threads=self.threads, seconds=seconds)
        return found.step.path.parent

    def _new(self, suffix: str) -> Path:
        return self.folder / f"{sum(1 for _ in self.folder.iterdir())}.{suffix}"


def choices(options: Mapping[str, str], functions: tuple[FunctionSpec, ...]) -> dict[str, str]:
    """Bodies by gradient node, from `options` by gradient op or node. Raises UsageError."""
    ops, nodes = {f.op for f in functions}, {f.node for f in functions}
    for name in options.keys() - ops - nodes:
        raise UsageError(f"the network has no gradient op '{name}'.", hint=did_you_mean(name, ops))
    by_op = {f.node: options[f.op] for f in functions if f.op in options}
    return by_op | {f.node: options[f.node] for f in functions if f.node in options}
