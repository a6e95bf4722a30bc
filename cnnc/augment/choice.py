"""One augmentation of several."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cnnc.augment.augmentation import Augmentation, Batch, Call, Value
from cnnc.bundle import TargetSpec
from cnnc.errors import GraphFileError
from cnnc.ir import TensorType, dims_of
from cnnc.losses.loss import Term
from cnnc.source import user_line


@dataclass(frozen=True)
class RandomChoice(Augmentation):
    """One of `augmentations` for each example, with equal chances: ``RandomChoice([MixUp(), CutMix()])``.

    All of them are computed. Where several mix, they mix an example with the same other one.
    """

    kind = "choice"
    augmentations: Sequence[Augmentation]

    def __post_init__(self) -> None:
        given = self.augmentations
        if (
            not isinstance(given, tuple | list)
            or not given
            or not all(isinstance(a, Augmentation) for a in given)
        ):
            raise GraphFileError(
                f"RandomChoice takes a list of augmentations, not {given!r}.",
                where=user_line(),
                hint="Write augment.RandomChoice([augment.MixUp(), augment.CutMix()]).",
            )
        object.__setattr__(self, "augmentations", tuple(given))

    def check(self, image: TensorType, target: TargetSpec) -> None:
        """Each can be done."""
        for augmentation in self.augmentations:
            augmentation.check(image, target)

    def emit(self, op: Call, batch: Batch) -> Batch:
        """Images and targets of the chosen one; where targets differ in number, each by its share."""
        (number,) = op.draw(batch, 1)
        index = op.below(number, len(self.augmentations))
        results, chosen = [], []
        for i, augmentation in enumerate(self.augmentations):
            results.append(augmentation.emit(op.part(f"{augmentation.kind}{i + 1}"), batch))
            chosen.append(op.Equal(index, float(i)))
        images = results[0].images
        for result, this in zip(results[1:], chosen[1:], strict=True):
            images = op.Where(_like(op, this, images), result.images, images)
        return Batch(images, _terms(op, [result.terms for result in results], chosen, images))


def _terms(
    op: Call, results: Sequence[Sequence[Term]], chosen: Sequence[Value], images: Value
) -> tuple[Term, ...]:
    if all(len(terms) == 1 and terms[0][1] is None for terms in results):
        picked = dict(results[0][0][0])
        for ((others, _),), this in zip(results[1:], chosen[1:], strict=True):
            for name, other in others.items():
                if other is not picked[name]:
                    picked[name] = op.Where(_like(op, this, other), other, picked[name])
        return ((picked, None),)
    shares: dict[tuple[Value, ...], Value] = {}
    for terms, this in zip(results, chosen, strict=True):
        weight = op.reshape(op.cast(this, images), dims_of(this)[:1])
        for targets, share in terms:
            key, part = tuple(targets.values()), weight if share is None else op.Mul(share, weight)
            shares[key] = op.Add(shares[key], part) if key in shares else part
    names = tuple(results[0][0][0])
    return tuple((dict(zip(names, key, strict=True)), share) for key, share in shares.items())


def _like(op: Call, chosen: Value, value: Value) -> Value:
    """[N, 1, 1, 1] in as many dimensions as `value` has."""
    return op.reshape(chosen, (dims_of(chosen)[0], *[1] * (len(dims_of(value)) - 1)))
