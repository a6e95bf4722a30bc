"""Augmentations by themselves: a graph from a batch to what they make of it, and the numbers they drew."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir
from traced import lowered

from cnnc.augment import Augmentation
from cnnc.augment.augmentation import Batch, Facts, emit_all
from cnnc.bundle import Preprocessing, TargetSpec
from cnnc.deploy.runtimes import REFERENCE, Runtime
from cnnc.heads import dominant
from cnnc.ir import Builder, TensorType
from cnnc.opset import OPSET

Array = np.ndarray[Any, Any]
COLOUR = Preprocessing(1 / 255, (0.5, 0.4, 0.3), (0.2, 0.3, 0.4))
PLAIN = Preprocessing(1 / 255)
LABEL = TargetSpec("label", "class", "int64", ("N",))


@dataclass(frozen=True)
class Result:
    """What came out: images, targets with their shares, the label that metrics see, numbers by node."""

    images: Array
    targets: list[Array]
    shares: list[Array]
    seen: Array
    numbers: dict[str, Array]


def model(
    augmentations: Sequence[Augmentation],
    dims: tuple[int | str, ...],
    preprocessing: Preprocessing = PLAIN,
    target: TargetSpec = LABEL,
    dtype: ir.DataType = ir.DataType.FLOAT,
) -> onnx.ModelProto:
    """A graph from image, target, seed and step to a `Result`'s fields, in the order of `run`."""
    builder = Builder(ir.Graph([], [], nodes=[], opset_imports={"": OPSET}, name="augment"))
    image = builder.input("image", TensorType(dtype, dims))
    kind = ir.DataType.from_numpy(np.dtype(target.dtype))
    label = builder.input("target", TensorType(kind, target.shape))
    seed, step = (builder.input(name, TensorType(ir.DataType.INT64, ())) for name in ("seed", "step"))
    facts = Facts(seed, step, preprocessing, {"target": target})
    batch = emit_all(builder, augmentations, Batch(image, (({"target": label}, None),)), facts)
    shares = [(targets["target"], share) for targets, share in batch.terms]
    outputs = {"images": batch.images, "seen": dominant(builder, shares)}
    for i, (value, share) in enumerate(shares):
        outputs[f"target{i}"] = value
        if share is not None:
            outputs[f"share{i}"] = share
    for node in builder.graph:
        if node.op_type == "UniformDraws":
            outputs[f"draws {node.name}"] = node.outputs[0]
    for name, value in outputs.items():
        builder.graph.outputs.append(builder.op("Identity", value, name=name))
    return lowered(builder.graph)


def run(
    given: onnx.ModelProto, image: Array, target: Array, seed: int = 3, step: int = 5, on: Runtime = REFERENCE
) -> Result:
    """One run of a `model`."""
    feeds = {"image": image, "target": target, "seed": np.array(seed), "step": np.array(step)}
    values = on.load(given)(feeds)
    targets, shares = (
        [values[name] for name in sorted(values) if name.startswith(prefix)] for prefix in ("target", "share")
    )
    numbers = {name[6:]: value for name, value in values.items() if name.startswith("draws ")}
    return Result(values["images"], targets, shares, values["seen"], numbers)


def once(
    augmentation: Augmentation,
    image: Array,
    target: Array | None = None,
    preprocessing: Preprocessing = PLAIN,
    spec: TargetSpec = LABEL,
) -> Result:
    """One augmentation on one batch, in the image's element type."""
    dtype = ir.DataType.from_numpy(image.dtype)
    given = model([augmentation], ("N", *image.shape[1:]), preprocessing, spec, dtype)
    return run(given, image, np.arange(len(image)) if target is None else target)


def stored(count: int, channels: int = 3, height: int = 9, width: int = 8, seed: int = 0) -> Array:
    """Random stored images, uint8."""
    random = np.random.default_rng(seed)
    return random.integers(0, 256, (count, channels, height, width), dtype=np.uint8)


def seen(images: Array, preprocessing: Preprocessing, dtype: npt.DTypeLike = np.float32) -> Array:
    """Stored images as the network sees them."""
    scaled = images * preprocessing.scale
    if preprocessing.mean:
        channels = (np.array(v)[:, None, None] for v in (preprocessing.mean, preprocessing.std))
        mean, std = channels
        scaled = (scaled - mean) / std
    return scaled.astype(dtype)
