"""Metrics over a whole split, exact with a short last batch: sum of the sums over sum of the counts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping

from cnnc.bundle import Array, Bundle, Manifest
from cnnc.data import Prefetcher, Split, batches, preprocess, targets
from cnnc.runtime.providers import Provider
from cnnc.runtime.session import EvalSession, Sums


class Accumulator:
    """Sums of metrics over batches, in double precision."""

    def __init__(self, sums: Sums | None = None) -> None:
        self.sums: Sums = dict(sums or {})

    def add(self, sums: Sums) -> None:
        """Take in one batch."""
        for name, (total, count) in sums.items():
            so_far = self.sums.get(name, (0, 0))
            self.sums[name] = (so_far[0] + total, so_far[1] + count)

    def values(self) -> dict[str, float]:
        """Each metric over everything taken in."""
        return {name: total / count for name, (total, count) in self.sums.items()}


def feeds(splits: Iterable[Split], manifest: Manifest) -> Iterator[tuple[Array, Array]]:
    """Each batch of stored images and labels as the arrays that the graphs take."""
    for split in splits:
        yield (
            preprocess(split.images, manifest.preprocessing, manifest.input),
            targets(split.labels, manifest.target),
        )


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
    session.use(state)
    return run_evaluation(session, split, batch_size)


def run_evaluation(
    session: EvalSession, split: Split, batch_size: int, between: Callable[[], None] = lambda: None
) -> dict[str, float]:
    """The metrics over `split` with the state that `session` uses; `between` is called after each batch."""
    total = Accumulator()
    with Prefetcher(feeds(batches(split, batch_size), session.bundle.manifest)) as ready:
        for images, labels in ready:
            total.add(session.sums(images, labels))
            between()
    return total.values()
