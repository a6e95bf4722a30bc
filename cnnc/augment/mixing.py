"""Augmentations that mix each example with another one of its batch, and their targets by the same shares.

The other example is the one that lies k places further round the batch, with k drawn anew for each step: they
are in a random order already.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt

from cnnc.augment.augmentation import Augmentation, Batch, Call, Value, is_image, sizes
from cnnc.augment.erasing import rectangle
from cnnc.bundle import TargetSpec
from cnnc.checks import probability, real
from cnnc.errors import ShapeError
from cnnc.ir import TensorType, dims_of
from cnnc.losses.loss import Term

_LEVELS = 1024
"""How many shares are told apart: the ten upper bits of a number are the independent ones."""


@dataclass(frozen=True)
class _Mixing(Augmentation):
    """Shares from Beta(`alpha`, `alpha`), with the probability `p`."""

    alpha: float = 1.0
    p: float = 1.0

    def __post_init__(self) -> None:
        owner = type(self).__name__
        real(owner, "alpha", self.alpha, positive=True)
        probability(owner, "p", self.p)


@dataclass(frozen=True)
class MixUp(_Mixing):
    """λ·x + (1 - λ)·x′ for an example and another, λ from Beta(`alpha`, `alpha`); Zhang et al., 2018.

    λ is drawn for each example, and is 1 with the probability 1 - `p`.
    """

    kind = "mixup"

    def check(self, image: TensorType, target: TargetSpec) -> None:
        """Anything can be mixed."""

    def emit(self, op: Call, batch: Batch) -> Batch:
        """Images by λ, targets with the shares λ and 1 - λ."""
        image = batch.images
        whether, level, offset = op.draw(batch, 3)
        share = op.looked_up(beta_quantiles(self.alpha).tolist(), op.below(level, _LEVELS))
        share = op.cast(op.Where(op.Less(whether, self.p), share, 1.0), image)
        op.pair(batch, offset)
        by_image = op.reshape(share, (dims_of(share)[0], *[1] * (len(dims_of(image)) - 1)))
        other = op.partners(image)
        mixed = op.Add(op.Mul(op.Sub(image, other), by_image), other)
        return Batch(mixed, _shared(op, batch, share))


@dataclass(frozen=True)
class CutMix(_Mixing):
    """A rectangle of another example, and of its target the rectangle's share of the area; Yun et al., 2019.

    Its sides are √(1 - λ) of the image's, with λ from Beta(`alpha`, `alpha`), its centre is anywhere, and
    what lies outside of the image is cut off. Nothing is cut with the probability 1 - `p`. Targets that are
    images themselves get the same rectangle of the other target.
    """

    kind = "cutmix"

    def emit(self, op: Call, batch: Batch) -> Batch:
        """A rectangle of no width where nothing is cut."""
        image = batch.images
        _, height, width = sizes(image)
        whether, level, down, across, offset = op.draw(batch, 5)
        place = op.below(level, _LEVELS)
        edges, lengths = [], []
        for number, size in ((down, height), (across, width)):
            halves = np.floor(size * np.sqrt(1.0 - beta_quantiles(self.alpha)) / 2)
            half = op.looked_up(halves.tolist(), place)
            centre = op.below(number, size)
            begin = op.Max(op.Sub(centre, half), 0.0)
            end = op.Min(op.Add(centre, half), float(size))
            end = op.Where(op.Less(whether, self.p), end, begin)
            edges += [begin, end]
            lengths.append(op.Sub(end, begin))
        mask = rectangle(op, image, *edges)
        op.pair(batch, offset)
        mixed = op.Where(mask, op.partners(image), image)

        def pasted(name: str, target: Value) -> Value:
            dims = dims_of(target)
            if not is_image(dims, dims_of(image)):
                return target
            if len(batch.terms) > 1:
                raise ShapeError(
                    "CutMix can't cut targets that are images and are mixed already.",
                    hint="Put it before MixUp.",
                )
            by_target = op.reshape(mask, (dims[0], *dims_of(mask)[2:])) if len(dims) == 3 else mask
            cut: Value = op.Where(by_target, op.partners(target), target)
            done.add(cut)
            return cut

        done: set[Value] = set()
        cut = Batch(mixed, batch.terms).with_targets(pasted)
        if all(target in done for targets, _ in cut.terms for target in targets.values()):
            return cut
        share = op.Sub(1.0, op.Div(op.Mul(*lengths), float(height * width)))
        return Batch(mixed, _shared(op, cut, op.cast(share, image), done))


def _shared(op: Call, batch: Batch, share: Value, done: Collection[Value] = ()) -> tuple[Term, ...]:
    """The targets by their share, and those of the partners by what is left; `done` are mixed already."""
    kept = op.reshape(share, dims_of(share)[:1])
    left = op.Sub(1.0, kept)
    own = [(targets, kept if s is None else op.Mul(s, kept)) for targets, s in batch.terms]
    others = [
        (
            {name: t if t in done else op.partners(t) for name, t in targets.items()},
            left if s is None else op.Mul(op.partners(s), left),
        )
        for targets, s in batch.terms
    ]
    return (*own, *others)


@cache
def beta_quantiles(alpha: float) -> npt.NDArray[np.float64]:
    """The quantiles of Beta(α, α) at (i + 1/2) / 1024, in place of its inverse distribution function.

    With s = x^α the density x^(α-1)·(1-x)^(α-1) becomes (1-x)^(α-1) / α, which is bounded on [0, 1/2]; the
    other half is its mirror image.
    """
    s = np.linspace(0.0, 0.5**alpha, 2**14 + 1)
    x = s ** (1.0 / alpha)
    density = (1.0 - x) ** (alpha - 1.0)
    mass = np.concatenate([[0.0], np.cumsum(density[1:] + density[:-1])])
    wanted = (np.arange(_LEVELS // 2) + 0.5) / _LEVELS
    half = np.interp(2.0 * wanted, mass / mass[-1], s) ** (1.0 / alpha)
    return np.concatenate([half, 1.0 - half[::-1]])
