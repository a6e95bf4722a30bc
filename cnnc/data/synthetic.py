"""Made-up examples that fit a network: the same everywhere, a function of the manifest and a name."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import prod

import numpy as np

from cnnc.bundle import Array, HeadSpec, Manifest, TargetSpec
from cnnc.data.class_names import class_count
from cnnc.data.dataset import LABELS, Split
from cnnc.data.feeds import feed
from cnnc.errors import ModelError
from cnnc.initial import uniforms

ASSUMED_SIZE = 32
"""Taken for a size that a network leaves open, such as an image's height, where any will do."""
IGNORED_SHARE = 1 / 8
"""Of labels, where the loss ignores one."""


def synthetic_split(
    manifest: Manifest, count: int, name: str, sizes: Mapping[str, int] | None = None
) -> Split:
    """`count` images of random pixels, uint8 like stored ones, with random targets of the right kinds.

    Class labels are classes that the network has, a few of them the one that the loss ignores; binary targets
    are 0 or 1, those of a distribution add up to 1, values lie in [-1, 1). `sizes` are those of symbols that
    the network leaves open. Raises ModelError where one is not known.
    """
    known = dict(sizes or {})
    shape = (count, *static(manifest.input.shape[1:], manifest.input.name, known))
    images = np.floor(256 * _draws(shape, manifest.seed, f"{name}/image")).astype(np.uint8)
    heads: dict[str, list[HeadSpec]] = {}
    for head in manifest.heads:
        heads.setdefault(head.target.array, []).append(head)
    made = {}
    for array, same in heads.items():
        target = same[0].target
        shape = (count, *static(target.shape[1:], target.name, known))
        stream = f"{name}/{target.name.replace('label', 'target', 1)}"
        classes = min(class_count(head) or 2 for head in same)
        made[array] = _TARGETS[target.kind](_draws(shape, manifest.seed, stream), target, classes)
    labels = made.pop(LABELS, np.zeros((count, 0), np.float32))
    return Split(images, labels, named=made)


def synthetic_batch(
    manifest: Manifest, count: int, name: str, sizes: Mapping[str, int] | None = None
) -> tuple[Array, ...]:
    """A `synthetic_split` as what the graphs take: the images, then each of `Manifest.targets`."""
    images, *targets = feed(synthetic_split(manifest, count, name, sizes), manifest)
    return images.astype(manifest.input.dtype, copy=False), *targets


def assumed_sizes(manifest: Manifest) -> dict[str, int]:
    """`ASSUMED_SIZE` for every size of an example that the network leaves open."""
    shapes = [manifest.input.shape, *(target.shape for target in manifest.targets)]
    return {size: ASSUMED_SIZE for shape in shapes for size in shape[1:] if isinstance(size, str)}


def static(shape: Sequence[int | str], name: str, sizes: Mapping[str, int]) -> tuple[int, ...]:
    """`shape` with a size for each symbol. Raises ModelError where `sizes` lacks one."""
    found = [size if isinstance(size, int) else sizes.get(size) for size in shape]
    if unknown := [str(symbol) for symbol, size in zip(shape, found, strict=True) if size is None]:
        raise ModelError(
            f"'{name}' has sizes that nothing fixes ({', '.join(unknown)}), so no example of it can be made."
        )
    return tuple(size for size in found if size is not None)


def _draws(shape: Sequence[int], seed: int, name: str) -> Array:
    return uniforms(prod(shape), seed, name).reshape(shape)


def _labels(draws: Array, target: TargetSpec, classes: int) -> Array:
    """Classes; in `IGNORED_SHARE` of the places, but not in the first, the label that the loss ignores."""
    counted = np.array([label for label in range(classes) if label != target.ignored])
    scaled = counted.size * draws
    labels = counted[np.floor(scaled).astype(np.int64)]
    if target.ignored is not None:
        left_out = scaled % 1 < IGNORED_SHARE
        left_out.flat[0] = False
        labels[left_out] = target.ignored
    return labels


def _distributions(draws: Array, target: TargetSpec, classes: int) -> Array:
    return (draws / draws.sum(axis=1, keepdims=True)).astype(np.float32)


_TARGETS: dict[str, Callable[[Array, TargetSpec, int], Array]] = {
    "class": _labels,
    "binary": lambda draws, target, classes: np.floor(2 * draws).astype(np.float32),
    "distribution": _distributions,
    "value": lambda draws, target, classes: (2 * draws - 1).astype(np.float32),
}
