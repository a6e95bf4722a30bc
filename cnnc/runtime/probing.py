"""Short trainings that leave nothing behind: which learning rate, and whether a network learns at all."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain, count

from cnnc.bundle import Array, Bundle
from cnnc.data import Dataset, Prefetcher, Split, batches, check, epoch_order
from cnnc.errors import RunError, UsageError
from cnnc.runtime.evaluation import Accumulator, feeds
from cnnc.runtime.learning_rate import LearningRate
from cnnc.runtime.providers import choose
from cnnc.runtime.session import StepSession
from cnnc.runtime.settings import Settings
from cnnc.runtime.steepest import SMOOTHING, steepest
from cnnc.runtime.trainer import start_state

DIVERGED = 4.0
"""The search ends where the loss is so many times the lowest one."""
FALLEN = 0.9
"""A network that can learn brings the loss of one batch down by this share, or its answers to all right."""


@dataclass(frozen=True)
class RateSearch:
    """The loss at learning rates that grow from step to step; L. N. Smith, 2017, arXiv:1506.01186.

    `losses` are smoothed by a moving average without bias. `suggestion` is the rate at which the loss falls
    fastest over log(rate), as `steepest` says; None where it never falls clearly. `diverged` tells whether
    the search ended since the loss grew.
    """

    rates: tuple[float, ...]
    losses: tuple[float, ...]
    suggestion: float | None
    diverged: bool


@dataclass(frozen=True)
class Overfit:
    """How the `losses` of one batch of `examples` fell when it was trained on again and again.

    `value` is the last value of the metric called `metric`; `learned` says whether that is enough.
    """

    examples: int
    losses: tuple[float, ...]
    metric: str
    value: float
    learned: bool


def search_rate(
    bundle: Bundle,
    dataset: Dataset,
    settings: Settings,
    *,
    low: float = 1e-6,
    high: float = 10.0,
    steps: int = 120,
    after: Callable[[int, int], None] = lambda step, steps: None,
) -> RateSearch:
    """Train a copy of the first state, the rate growing from `low` to `high`; the bundle stays as it is.

    The schedule of the graph is undone: each step is made at the rate it should have. A graph that gathers
    gradients over several batches keeps the rate for as many. `after` is called after each rate. Raises
    UsageError for limits out of order, and what `train` raises before it begins.
    """
    if not 0 < low < high < math.inf:
        raise UsageError(
            f"the learning rates go from {low:g} to {high:g}: the first must be above 0 and lower."
        )
    if steps < 10:
        raise UsageError(f"{steps} steps are too few to see a curve: take 10 or more.")
    stepper = _Stepper(bundle, dataset, settings)
    stream = stepper.stream()
    rates: list[float] = []
    losses: list[float] = []
    average = 0.0
    for number in range(steps):
        rate = low * (high / low) ** (number / (steps - 1))
        several = [stepper.step(next(stream), rate)[0] for _ in range(bundle.manifest.accumulate)]
        loss = sum(several) / len(several)
        average = SMOOTHING * average + (1 - SMOOTHING) * loss
        smooth = average / (1 - SMOOTHING ** (number + 1))
        if not math.isfinite(smooth) or (losses and smooth > DIVERGED * min(losses)):
            break
        rates.append(rate)
        losses.append(smooth)
        after(number + 1, steps)
    else:
        return RateSearch(tuple(rates), tuple(losses), steepest(rates, losses), False)
    return RateSearch(tuple(rates), tuple(losses), steepest(rates, losses), True)


def overfit_one_batch(
    bundle: Bundle,
    dataset: Dataset,
    settings: Settings,
    *,
    steps: int = 300,
    after: Callable[[int, int], None] = lambda step, steps: None,
) -> Overfit:
    """Train on one batch until the network knows it by heart, or for `steps` steps; nothing is written.

    The rate is the base rate from the first step on, without the graph's schedule. It ends early where the
    loss is down to a hundredth. Raises what `train` raises before it begins.
    """
    stepper = _Stepper(bundle, dataset, settings)
    batch = next(stepper.stream())
    manifest = bundle.manifest
    metric = next((m for m in manifest.scalar_metrics if m.name == stepper.settings.best), None)
    assert metric is not None
    losses: list[float] = []
    value = math.nan
    for number in range(steps * manifest.accumulate):
        loss, total = stepper.step(batch, stepper.settings.lr or 0.0)
        losses.append(loss)
        value = total.values([metric])[metric.name]
        after(number + 1, steps)
        if not math.isfinite(loss) or (loss < 0.01 * losses[0] and value in (1.0, loss)):
            break
    fallen = math.isfinite(losses[-1]) and losses[-1] <= (1 - FALLEN) * losses[0]
    return Overfit(len(batch[0]), tuple(losses), metric.name, value, fallen or value == 1.0)


def refuse_unlearned(result: Overfit) -> None:
    """Raise RunError where the network could not learn even one batch."""
    if result.learned:
        return
    last = f"it went from {result.losses[0]:.4f} to {result.losses[-1]:.4f}"
    raise RunError(
        f"the network can't learn even one batch of {result.examples} examples by heart: its loss should "
        f"fall by {FALLEN:.0%}, and in {len(result.losses)} steps {last}.",
        hint="Look whether labels and images belong together, whether parameters are frozen, and try another "
        "--lr (`cnnc lr-find` suggests one). Dropout, augmentation and label smoothing hold the loss up.",
    )


class _Stepper:
    """Steps at rates of one's own choice, on a copy of the first state."""

    def __init__(self, bundle: Bundle, dataset: Dataset, settings: Settings) -> None:
        self._manifest = bundle.manifest
        self._provider = choose(settings.device)
        self.settings = settings.resolved(self._manifest, self._provider.device)
        check(dataset, self._manifest)
        self._train: Split = dataset.train
        state = start_state(bundle, self.settings.seed)
        scalars = self.settings.scalars(self._manifest)
        self._step = StepSession(bundle, self._provider, self.settings.threads, state=state, scalars=scalars)
        self._done = 0
        try:
            self._schedule: LearningRate | None = LearningRate(bundle)
        except LookupError:  # a graph that computes its rate from more than the step
            self._schedule = None

    def stream(self) -> Iterator[tuple[Array, ...]]:
        """Batches without end, in the order in which a run takes them; an incomplete last one is left out."""
        size = min(self.settings.batch_size, len(self._train))
        epochs = (epoch_order(len(self._train), self.settings.seed or 0, epoch) for epoch in count())
        stored = chain.from_iterable(batches(self._train, size, order=order) for order in epochs)
        whole = (split for split in stored if len(split) == size)
        with Prefetcher(feeds(whole, self._manifest)) as ready:
            yield from ready

    def step(self, batch: tuple[Array, ...], rate: float) -> tuple[float, Accumulator]:
        """One step at the learning rate `rate`: the loss before it, and the metrics."""
        now = self._schedule.at(self._done) if self._schedule else self._manifest.learning_rate
        if now > 0:
            self._step.set_scalar("lr_scale", rate / now)
        loss, sums = self._step.step(*batch)
        self._done += 1
        total = Accumulator()
        total.add(sums)
        return loss, total
