"""Whether a data set fits a network: told before the first step, not by a runtime in the middle of one."""

from __future__ import annotations

import numpy as np

from cnnc.bundle import Manifest, Preprocessing, TargetSpec, TensorSpec
from cnnc.data.class_names import check_names, class_count
from cnnc.data.dataset import LABELS, Array, Dataset, Split
from cnnc.data.feeds import check_shape, matches, targets
from cnnc.errors import DataError

SAMPLE = 64
"""So many images tell what floats are."""


def check(dataset: Dataset, manifest: Manifest) -> None:
    """Raise DataError unless images, labels and classes fit the network that `manifest` describes."""
    for name, split in (("train", dataset.train), ("test", dataset.test)):
        where = split.where or f"{dataset.name}, {name}"
        for head in manifest.heads:
            check_split(split, manifest.input, head.target, class_count(head), where)
        check_scaled(split.images, manifest.preprocessing, where)
    for head in manifest.heads:
        if head.target.kind == "class" and head.target.array == LABELS:
            check_names(dataset.classes, head.classes, dataset.train.where or dataset.name)


def check_split(split: Split, spec: TensorSpec, target: TargetSpec, classes: int | None, where: str) -> None:
    """Raise DataError unless images fit the input `spec`, and labels the `target` (of so many classes)."""
    if not len(split):
        raise DataError("this holds no images.", where=where)
    if target.array not in split.targets:
        raise DataError(
            f"there is no array {target.array} of targets for the network's '{target.name}'; there is "
            f"{', '.join(split.targets)}.",
            where=where,
            hint="Several outputs take .npz files: np.savez(path, x=images, y_NAME=targets, …).",
        )
    labels = split.targets[target.array]
    labels_where = split.labels_where or where
    if len(labels) != len(split):
        raise DataError(f"there are {len(split)} images and {len(labels)} labels.", where=labels_where)
    check_shape(split.images, spec, where)
    check_finite(split.images, where)
    if target.kind == "class":
        _check_indices(labels, target, classes, labels_where)
    else:
        _check_targets(labels, target, labels_where)


def check_finite(images: Array, where: str) -> None:
    """Raise DataError where pixels are NaN or infinite."""
    if images.dtype.kind == "f" and not np.isfinite(images).all():
        index = int(np.argwhere(~np.isfinite(images))[0, 0])
        raise DataError(f"image {index} (from 0) has pixels that are NaN or infinite.", where=where)


def check_scaled(images: Array, preprocessing: Preprocessing, where: str) -> None:
    """Raise DataError where floats, which count as scaled already, are the whole numbers of stored pixels.

    A network that takes such numbers as they are says so by a scale of 1. A sample of the images tells.
    """
    if images.dtype.kind != "f" or preprocessing.scale == 1 or not len(images):
        return
    chosen = images[np.unique(np.linspace(0, len(images) - 1, SAMPLE, dtype=np.int64))]
    if (largest := chosen.max(initial=0)) > 1 and (chosen == np.floor(chosen)).all():
        raise DataError(
            f"the images are floats of nothing but whole numbers, up to {largest:g}. Floats count as scaled "
            "already, so that the network would learn other numbers than those it gets of image files.",
            where=where,
            hint="Store them as uint8, or divide them by 255 yourself. Where the network is to take them as "
            "they are, say so: Tensor(…, scale=1) in the graph file, or --scale 1 for an ONNX model.",
        )


def _check_indices(labels: Array, target: TargetSpec, count: int | None, where: str) -> None:
    if labels.dtype.kind not in "iu" or not matches(labels.shape[1:], target.shape[1:]):
        wanted = ", ".join(["n", *map(str, target.shape[1:])])
        raise DataError(
            f"the labels are {labels.dtype} {list(labels.shape)}, the network's loss takes class indices"
            + (f" [{wanted}]." if len(target.shape) > 1 else "."),
            where=where,
            hint=f"Store them as integers [{wanted}], for instance with y.astype(np.int64).",
        )
    wrong = (labels < 0) | (labels >= (count or np.inf))
    if target.ignored is not None:
        wrong &= labels != target.ignored
        if (labels == target.ignored).all():
            raise DataError(f"all labels are {target.ignored}, which the loss ignores.", where=where)
    if wrong.any():
        low, high, place = int(labels.min()), int(labels.max()), tuple(np.argwhere(wrong)[0])
        raise DataError(
            f"the labels lie between {low} and {high} (image {place[0]} has {labels[place]}), "
            f"the network's classes are 0 to {'…' if count is None else count - 1}.",
            where=where,
            hint="Number the classes from 0, or give the network's last layer as many outputs as there are.",
        )


def _check_targets(labels: Array, target: TargetSpec, where: str) -> None:
    """Targets of the output's shape: finite numbers, such as the kind asks for."""
    shape = targets(labels[:1], target).shape
    if not matches(shape[1:], target.shape[1:]):
        raise DataError(
            f"the targets are {list(labels.shape)}, the network's '{target.name}' is {list(target.shape)}.",
            where=where,
            hint="Give one number for each output of the network.",
        )
    if not np.isfinite(labels).all():
        raise DataError("some targets are NaN or infinite.", where=where)
    if target.kind == "binary" and (labels.min() < 0 or labels.max() > 1):
        raise DataError(
            f"the targets lie between {labels.min()} and {labels.max()}.",
            where=where,
            hint="Binary cross-entropy takes targets from 0 to 1.",
        )
    if target.kind == "distribution" and (labels.min() < 0 or abs(labels.sum(axis=1) - 1).max() > 1e-3):
        raise DataError(
            "some targets are negative, or those of an example don't add up to 1.",
            where=where,
            hint="Give a probability for each class.",
        )
