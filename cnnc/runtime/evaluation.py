"""Metrics over a whole split, exact with a short last batch: sums and counts are added, and divided last."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from cnnc.bundle import Array, Bundle, Manifest, MetricSpec
from cnnc.data import Prefetcher, Split, batches, depth_for, feed
from cnnc.runtime.finalize import value
from cnnc.runtime.providers import Provider
from cnnc.runtime.session import EvalSession, Sums


class Accumulator:
    """Sums of metrics over batches, in double precision and whole numbers."""

    def __init__(self, sums: Sums | None = None) -> None:
        self.sums: Sums = dict(sums or {})

    def add(self, sums: Sums) -> None:
        """Take in one batch."""
        for name, (total, count) in sums.items():
            if name in self.sums:
                before, counted = self.sums[name]
                total, count = _added(before, total), counted + count
            self.sums[name] = (total, count)

    def values(self, metrics: Iterable[MetricSpec]) -> dict[str, float]:
        """Each of `metrics` over everything taken in."""
        return {metric.name: value(metric, self.sums) for metric in metrics}


def _added(a: Any, b: Any) -> Any:
    """The sum of two numbers, or of two nested lists element by element."""
    return [_added(x, y) for x, y in zip(a, b, strict=True)] if isinstance(a, list) else a + b


def feeds(splits: Iterable[Split], manifest: Manifest) -> Iterator[tuple[Array, ...]]:
    """Each batch of stored images and targets as the arrays that the graphs take."""
    for split in splits:
        yield feed(split, manifest)


def ahead(manifest: Manifest, batch_size: int) -> int:
    """How many batches to prepare ahead of the step, which takes images as float32."""
    sizes = [size for size in manifest.input.shape[1:] if isinstance(size, int)]
    is_static = len(sizes) == len(manifest.input.shape) - 1
    return depth_for(4 * batch_size * math.prod(sizes)) if is_static else 2


def evaluate(
    bundle: Bundle,
    state: Mapping[str, Array],
    split: Split,
    *,
    device: str | Provider = "auto",
    threads: int | None = None,
    batch_size: int = 128,
) -> dict[str, float]:
    """The bundle's metrics of `state` over all of `split`.

    Raises ProviderError as `choose` does, DataError where the images don't fit the graph's input.
    """
    session = EvalSession(bundle, device, threads)
    session.use(state, batches=batches_of(split, batch_size))
    return run_evaluation(session, split, batch_size).values(bundle.manifest.scalar_metrics)


def batches_of(split: Split, batch_size: int) -> int:
    """How many batches a split is gone through in."""
    return -(-len(split) // batch_size)


def run_evaluation(
    session: EvalSession, split: Split, batch_size: int, between: Callable[[], None] = lambda: None
) -> Accumulator:
    """The sums over `split` with the state that `session` uses; `between` is called after each batch."""
    total = Accumulator()
    manifest = session.bundle.manifest
    with Prefetcher(feeds(batches(split, batch_size), manifest), ahead(manifest, batch_size)) as ready:
        for images, *targets in ready:
            if len(images):  # where bad images are skipped, a batch may be empty
                total.add(session.sums(images, *targets))
            between()
    return total
