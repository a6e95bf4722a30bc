"""From stored images and labels to the arrays a graph takes."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from cnnc.bundle import Manifest, Preprocessing, TargetSpec, TensorSpec
from cnnc.data.dataset import Array, Split
from cnnc.errors import DataError


def preprocess(images: Array, preprocessing: Preprocessing, spec: TensorSpec) -> npt.NDArray[np.float32]:
    """`images` [n, C, H, W] as the graph's input `spec`: float32, contiguous, scaled, normalised by channel.

    Integers become ``(v · scale - mean) / std``, floats ``(v - mean) / std``, computed in float32. Raises
    DataError where the images have other channels or another size than the input.
    """
    check_shape(images, spec)
    values = np.array(images, dtype=np.float32, order="C")
    if images.dtype.kind != "f":
        values *= np.float32(preprocessing.scale)
    if preprocessing.mean:
        values -= np.array(preprocessing.mean, dtype=np.float32)[:, None, None]
    if preprocessing.std:
        values /= np.array(preprocessing.std, dtype=np.float32)[:, None, None]
    return values


def targets(labels: Array, spec: TargetSpec) -> Array:
    """`labels` as the graph's target input: its dtype, and its axes of length 1 where [n] lacks them."""
    missing = len(spec.shape) - labels.ndim
    return np.ascontiguousarray(labels, dtype=spec.dtype).reshape(labels.shape + (1,) * max(missing, 0))


def feed(split: Split, manifest: Manifest) -> tuple[Array, ...]:
    """A batch of stored examples as what the graphs take: the images, then each of `Manifest.targets`."""
    images = preprocess(split.images, manifest.preprocessing, manifest.input)
    stored = split.targets
    return images, *(targets(stored[spec.array], spec) for spec in manifest.targets)


def check_shape(images: Array, spec: TensorSpec, where: str = "") -> None:
    """Raise DataError unless `images` [n, C, H, W] have the channels and the size of the graph's input."""
    if not matches(images.shape[1:], spec.shape[1:]):
        raise DataError(
            f"the images are [C, H, W] = [{', '.join(map(str, images.shape[1:]))}], "
            f"the network's input '{spec.name}' is [{', '.join(map(str, spec.shape[1:]))}].",
            where=where,
            hint="Resize or convert the images, or change the input in the graph file.",
        )


def matches(shape: tuple[int, ...], spec: tuple[int | str, ...]) -> bool:
    """Whether an array's axes are those of a graph's tensor, where a symbol stands for any size."""
    return len(shape) == len(spec) and all(
        isinstance(size, str) or size == actual for actual, size in zip(shape, spec, strict=True)
    )
