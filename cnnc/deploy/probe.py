"""Made-up examples that fit a network: the same everywhere, a function of the manifest and a name."""

from __future__ import annotations

import numpy as np

from cnnc.bundle import Array, HeadSpec, Manifest
from cnnc.data import Split
from cnnc.data.dataset import LABELS
from cnnc.errors import ModelError
from cnnc.initial import uniforms


def probe(manifest: Manifest, count: int, name: str) -> Split:
    """`count` images of random pixels, uint8 like stored ones, with random targets of the right kinds.

    Raises ModelError where a size of the network's input is not known.
    """
    sizes = _known(manifest.input.shape[1:], manifest.input.name)
    pixels = uniforms(count * int(np.prod(sizes)), manifest.seed, f"{name}/image")
    images = np.floor(256 * pixels).astype(np.uint8).reshape(count, *sizes)
    heads = {head.target.array: head for head in manifest.heads}
    made = {array: _targets(head, count, manifest.seed, name) for array, head in heads.items()}
    labels = made.pop(LABELS, np.zeros((count, 0), np.float32))
    return Split(images, labels, named=made)


def _targets(head: HeadSpec, count: int, seed: int, name: str) -> Array:
    """Random targets of one output."""
    target = head.target
    shape = (count, *_known(target.shape[1:], target.name))
    draws = uniforms(int(np.prod(shape)), seed, f"{name}/{target.name.replace('label', 'target', 1)}")
    draws = draws.reshape(shape)
    if target.kind == "class":
        (classes,) = _known(head.output.shape[1:2], head.output.name)
        return np.floor(classes * draws).astype(np.int64)
    if target.kind == "distribution":
        values = draws / draws.sum(axis=1, keepdims=True)
    else:
        values = np.floor(2 * draws) if target.kind == "binary" else 2 * draws - 1
    return values.astype(np.float32)


def _known(shape: tuple[int | str, ...], name: str) -> tuple[int, ...]:
    sizes = tuple(size for size in shape if isinstance(size, int))
    if len(sizes) < len(shape):
        symbols = ", ".join(str(size) for size in shape if not isinstance(size, int))
        raise ModelError(
            f"'{name}' has sizes that nothing fixes ({symbols}), so no example of it can be made."
        )
    return sizes
