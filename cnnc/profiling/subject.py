"""What is measured: a graph, what it belongs to, and synthetic inputs of the shapes it wants."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from cnnc.bundle import Array, Bundle, TargetSpec, TensorSpec
from cnnc.errors import UsageError, did_you_mean

Pass = Literal["train", "eval", "infer"]
PASSES: tuple[Pass, ...] = get_args(Pass)
_CLASSES = 10  # of a target whose classes the network's output does not count


@dataclass(frozen=True)
class Subject:
    """A graph to measure: one pass of a bundle, or (`bundle` None) any inference model.

    `graph` may be another file than the bundle's own of that pass, such as a tuned step, if it has its
    inputs and outputs. `example` are the sizes of one example that the graph leaves open.
    """

    name: str
    task: Pass
    graph: Path
    bundle: Bundle | None = None
    batch: int = 32
    example: tuple[int, ...] | None = None

    @classmethod
    def of_bundle(
        cls,
        bundle: Bundle,
        task: str = "train",
        batch: int = 32,
        *,
        example: Sequence[int] | None = None,
        graph: str | os.PathLike[str] | None = None,
    ) -> Subject:
        """A pass of a bundle. Raises UsageError for a pass there is none of.

        A bundle whose step is tuned for one batch size is measured at that.
        """
        if isinstance(size := bundle.manifest.input.shape[0], int):
            batch = size
        for known in PASSES:
            if task == known:
                path = bundle.graph(f"{known}.onnx") if graph is None else Path(graph)
                sizes = tuple(example) if example else None
                return cls(bundle.manifest.name, known, path, bundle, batch, sizes)
        raise UsageError(f"there is no pass '{task}'.", hint=did_you_mean(task, PASSES))

    def batch_arrays(self, random: np.random.Generator) -> tuple[Array, ...]:
        """Synthetic images and targets of the manifest's shapes."""
        assert self.bundle is not None
        manifest = self.bundle.manifest
        sizes = {manifest.input.shape[0]: self.batch}
        images = self._array(manifest.input, sizes, random)
        heads = {head.target.name: head for head in manifest.heads}.values()
        return images, *(_targets(head.target, head.output, sizes, random) for head in heads)

    def feeds(self, specs: Sequence[TensorSpec], random: np.random.Generator) -> dict[str, Array]:
        """A value for each input that the graph declares: batch, state and scalars."""
        known: dict[str, Array] = {}
        if self.bundle is not None:
            manifest = self.bundle.manifest
            known |= self.bundle.initial_state()
            known |= {name: np.array(value) for name, value in manifest.scalars.items()}
            names = [manifest.input.name, *(spec.name for spec in manifest.targets)]
            known |= zip(names, self.batch_arrays(random), strict=True)
        feeds = {}
        for spec in specs:
            if spec.name not in known:
                known[spec.name] = self._array(
                    spec, {spec.shape[0]: self.batch} if spec.shape else {}, random
                )
            feeds[spec.name] = known[spec.name].astype(spec.dtype, copy=False)
        return feeds

    def _array(self, spec: TensorSpec, sizes: dict[int | str, int], random: np.random.Generator) -> Array:
        """Uniform numbers, or zeros of an integer type, which are legal as indices."""
        if self.example is not None and len(self.example) == len(spec.shape) - 1:
            sizes |= dict(zip(spec.shape[1:], self.example, strict=True))
        shape = _static(spec.name, spec.shape, sizes)
        if np.dtype(spec.dtype).kind == "f":
            return random.random(shape, np.float32).astype(spec.dtype, copy=False)
        return np.zeros(shape, spec.dtype)


def _targets(
    target: TargetSpec, output: TensorSpec, sizes: Mapping[int | str, int], random: np.random.Generator
) -> Array:
    shape = _static(target.name, target.shape, sizes)
    if target.kind == "class":
        classes = output.shape[1] if len(output.shape) > 1 else _CLASSES
        return random.integers(0, classes if isinstance(classes, int) else _CLASSES, shape, target.dtype)
    values = random.random(shape, np.float32)
    if target.kind == "distribution":
        values /= values.sum(axis=1, keepdims=True)
    return values.astype(target.dtype, copy=False)


def _static(name: str, shape: Sequence[int | str], sizes: Mapping[int | str, int]) -> tuple[int, ...]:
    """The shape with a size for each symbol. Raises UsageError where one is not known."""
    found: list[Any] = [size if isinstance(size, int) else sizes.get(size) for size in shape]
    if None in found:
        raise UsageError(
            f"'{name}' is [{', '.join(map(str, shape))}], which leaves sizes open.",
            hint="Give the size of one example, such as --input-size 3x224x224.",
        )
    return tuple(found)
