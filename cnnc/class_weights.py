"""What each class counts in the loss: as the command line says it, given or balanced by the training labels.

Weights are part of the step, so a bundle is built with them. This is where the compiler half, which makes the
loss, learns what the data hold.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from cnnc.bundle import HeadSpec, TensorSpec
from cnnc.data import NAMED, Dataset, OnBadImage, targets
from cnnc.data.checking import check_split
from cnnc.data.class_names import check_names
from cnnc.data.dataset import LABELS
from cnnc.data.loading import load_wanted, wanted_of
from cnnc.data.parts import ALL, Share
from cnnc.errors import DataError, UsageError

if TYPE_CHECKING:
    from cnnc.ir import Network
    from cnnc.losses import Loss
    from cnnc.step import Recipe

BALANCED = "balanced"


@dataclass(frozen=True)
class ClassWeights:
    """The weights of the classes in every loss that takes some, in place of its own.

    `text` is a number of at least 0 for each class, such as ``1,2,0.5``, or ``balanced``: by scikit-learn's
    formula (`compute_class_weight`) n / (classes · count), of the n labels in `share` of the training split
    of `data` (None: the data set called as the network is), without those of images that are known to be bad.
    Labels that the loss ignores don't count. `on_bad_image` and `workers` are those of `cnnc.data.load`.
    Raises UsageError.
    """

    text: str
    data: str | None = None
    on_bad_image: OnBadImage = "stop"
    workers: int | None = None
    share: Share = ALL

    def __post_init__(self) -> None:
        if self.text == BALANCED:
            return
        try:
            weights = self.numbers
        except ValueError:
            weights = (math.nan,)
        if not all(0 <= weight < math.inf for weight in weights):
            raise UsageError(
                f"--class-weights takes '{BALANCED}' or a number of at least 0 for each class, not "
                f"'{self.text}'.",
                hint="Such as --class-weights 1,2,0.5, in the order of the labels.",
            )
        if not any(weights):
            raise UsageError("--class-weights are all 0: nothing would be learned.")

    @property
    def numbers(self) -> tuple[float, ...]:
        """The weights that `text` states."""
        return tuple(float(part) for part in self.text.split(","))

    def revise(self, network: Network, recipe: Recipe) -> Recipe:
        """The recipe with these weights in its losses, for `cnnc.compiler.compile_network`.

        Raises UsageError where no loss takes class weights, or another number of them; DataError where the
        data can't be read or don't fit, or lack a class.
        """
        from cnnc.heads import Heads, types_of

        specs = Heads(recipe.heads, types_of(network.outputs)).specs()
        weighed = [spec for spec, head in zip(specs, recipe.heads, strict=True) if _takes(head.loss)]
        if not weighed:
            names = " and ".join(type(head.loss).__name__ for head in recipe.heads)
            raise UsageError(
                f"--class-weights: {names} takes none.", hint=f"There are weights in {_kinds()}."
            )
        found = self._balanced(network, recipe, weighed) if self.text == BALANCED else self._given(weighed)
        heads = tuple(
            replace(head, loss=_weighed(head.loss, found[head.name])) if head.name in found else head
            for head in recipe.heads
        )
        return replace(recipe, heads=heads)

    def _given(self, specs: Sequence[HeadSpec]) -> dict[str, tuple[float, ...]]:
        """The numbers, for each of these outputs."""
        for spec in specs:
            if len(self.numbers) != _classes(spec):
                of = f" of the output '{spec.name}'" if spec.name else ""
                raise UsageError(
                    f"--class-weights {self.text}: {len(self.numbers)} weights for {_classes(spec)} classes"
                    f"{of}.",
                    hint=f"Give one for each class, in the order of the labels, or '{BALANCED}'.",
                )
        return {spec.name: self.numbers for spec in specs}

    def _balanced(
        self, network: Network, recipe: Recipe, specs: Sequence[HeadSpec]
    ) -> dict[str, tuple[float, ...]]:
        """From the training labels, for each of these outputs."""
        if self.data is None and recipe.name not in NAMED:
            raise UsageError(
                f"--class-weights {BALANCED}: balanced by which data?", hint="Give --data, or the numbers."
            )
        from cnnc.ir import dims_of

        image = TensorSpec(str(network.input.name), "float32", dims_of(network.input))
        wanted = wanted_of(image, recipe.heads[0].classes, recipe.preprocessing)
        wanted = replace(wanted, on_bad_image=self.on_bad_image, workers=self.workers)
        with closing(load_wanted(self.data or recipe.name, wanted)) as dataset:
            return {spec.name: balanced(dataset, image, spec, self.share) for spec in specs}


def balanced(dataset: Dataset, image: TensorSpec, spec: HeadSpec, share: Share = ALL) -> tuple[float, ...]:
    """n / (classes · count) of each class of an output, from the labels in `share` of the training split.

    `image` is the network's input. Distributions count by what they give to each class. Raises DataError
    where the data don't fit the network, or lack a class.
    """
    where, classes = dataset.train.where or f"{dataset.name}, train", _classes(spec)
    check_split(dataset.train, image, spec.target, classes, where)
    if spec.target.array == LABELS:
        check_names(dataset.classes, spec.classes, where)
    train, _ = share.of(dataset.train)
    labels = targets(train.targets[spec.target.array][train.usable], spec.target)
    if spec.target.kind == "class":
        counts = np.bincount(labels[labels != spec.target.ignored], minlength=classes).astype(np.float64)
    else:
        counts = labels.sum(axis=(0, *range(2, labels.ndim)), dtype=np.float64)
    if not counts.all():
        absent, names = int(np.argmin(counts)), spec.classes or dataset.classes
        called = f" ('{names[absent]}')" if names else ""
        raise DataError(
            f"class {absent}{called} has no training example, so --class-weights {BALANCED} can't weigh it.",
            where=where,
            hint="Add some, or give the weights as numbers: 1,2,0.5.",
        )
    return tuple((counts.sum() / (classes * counts)).tolist())


def _takes(loss: Loss) -> bool:
    """Whether a loss has weights of its classes."""
    return "class_weights" in vars(loss)


def _weighed(loss: Any, weights: tuple[float, ...]) -> Loss:
    """A loss that takes class weights, with these."""
    weighed: Loss = replace(loss, class_weights=weights)
    return weighed


def _kinds() -> str:
    from cnnc import losses

    kinds = [getattr(losses, name) for name in losses.__all__]
    return ", ".join(k.__name__ for k in kinds if "class_weights" in getattr(k, "__annotations__", {}))


def _classes(spec: HeadSpec) -> int:
    """The number of classes of an output [N, classes, …]."""
    count = spec.output.shape[1]
    if not isinstance(count, int):
        raise UsageError(f"--class-weights: the number of classes, {count}, is left open by the network.")
    return count
