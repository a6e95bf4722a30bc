"""What is measured: a graph, what it belongs to, and synthetic inputs of the shapes it wants."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from cnnc.bundle import Array, Bundle, TensorSpec
from cnnc.data import synthetic_batch
from cnnc.errors import UsageError, did_you_mean
from cnnc.initial import uniforms

Pass = Literal["train", "eval", "infer"]
PASSES: tuple[Pass, ...] = get_args(Pass)
_NAME = "bench"  # of the made-up numbers' stream


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

    def batch_arrays(self) -> tuple[Array, ...]:
        """Synthetic images and targets that fit the bundle. Raises UsageError where it leaves sizes open."""
        assert self.bundle is not None
        manifest = self.bundle.manifest
        self._shape(manifest.input)
        return synthetic_batch(manifest, self.batch, _NAME, self._sizes(manifest.input))

    def feeds(self, specs: Sequence[TensorSpec]) -> dict[str, Array]:
        """A value for each input that the graph declares: batch, state and scalars.

        Other inputs, as of a foreign model, are uniform numbers in [0, 1), or zeros of an integer type, which
        are legal as indices.
        """
        known: dict[str, Array] = {}
        if self.bundle is not None:
            manifest = self.bundle.manifest
            known |= self.bundle.initial_state()
            known |= {name: np.array(value) for name, value in manifest.scalars.items()}
            known |= zip(manifest.batch_names, self.batch_arrays(), strict=True)
        feeds = {}
        for spec in specs:
            if spec.name in known:
                array = known[spec.name]
            elif np.dtype(spec.dtype).kind == "f":
                shape = self._shape(spec)
                array = uniforms(prod(shape), 0, f"{_NAME}/{spec.name}").reshape(shape)
            else:
                array = np.zeros(self._shape(spec))
            feeds[spec.name] = array.astype(spec.dtype, copy=False)
        return feeds

    def _sizes(self, spec: TensorSpec) -> dict[str, int]:
        """What `batch` and `example` say of the sizes that an input leaves open."""
        given = (self.batch, *(self.example or ()))
        if len(given) != len(spec.shape):
            given = given[: min(1, len(spec.shape))]
        return {
            symbol: size for symbol, size in zip(spec.shape, given, strict=False) if isinstance(symbol, str)
        }

    def _shape(self, spec: TensorSpec) -> tuple[int, ...]:
        """An input's shape. Raises UsageError where a size is not known."""
        sizes = self._sizes(spec)
        found = [size if isinstance(size, int) else sizes.get(size) for size in spec.shape]
        if None in found:
            raise UsageError(
                f"'{spec.name}' is [{', '.join(map(str, spec.shape))}], which leaves sizes open.",
                hint="Give the size of one example, such as --input-size 3x224x224.",
            )
        return tuple(size for size in found if size is not None)
