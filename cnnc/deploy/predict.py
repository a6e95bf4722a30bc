"""What a trained network says of image files, and how well it does on a data set."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from cnnc.bundle import Array, Bundle, MetricSpec, TargetSpec
from cnnc.data import Dataset, batches, check, load, load_for, targets
from cnnc.data.checking import check_scaled, check_split
from cnnc.data.class_names import check_names
from cnnc.data.dataset import LABELS
from cnnc.data.images import Form, decode, read_bytes, read_header
from cnnc.deploy.inference import PREPROCESSING, InferenceModel, ModelOutput, metadata
from cnnc.deploy.inference_graph import finished, trained_model
from cnnc.deploy.scores import Measure, measure, measured
from cnnc.deploy.trained import Source, Trained, Which
from cnnc.errors import ModelError, UsageError
from cnnc.opset import OPSET
from cnnc.runtime import Run
from cnnc.runtime import evaluate as evaluate_bundle
from cnnc.runtime.evaluation import Accumulator

RESIZED = {"stretch": "stretched from", "crop": "cropped and scaled from", "pad": "scaled and padded from"}
MANY_CLASSES = 20
"""From so many classes on, top-5 accuracy is worth a line beside accuracy."""


@dataclass(frozen=True)
class Score:
    """One output: its index, the name of its class, and its value, which mostly is a probability."""

    index: int
    name: str
    value: float


@dataclass(frozen=True)
class Prediction:
    """What a network says of one image: the best scores, the highest first.

    The outputs of a network that computes plain values come all, in their own order. Where there are several
    outputs, `outputs` holds the scores of each by its name, and `scores` are the first's. `notes` tell what
    was done to the image and assumed of the model.
    """

    image: str
    scores: tuple[Score, ...]
    notes: tuple[str, ...]
    outputs: dict[str, tuple[Score, ...]] = field(default_factory=dict)

    def record(self) -> dict[str, Any]:
        """The prediction as one JSON object."""
        return asdict(self)


def predict(
    source: Source,
    images: Iterable[str | os.PathLike[str]],
    *,
    top: int = 3,
    which: Which = "best",
    device: str = "auto",
) -> list[Prediction]:
    """The `top` classes of each image file, by a run, a bundle or an .onnx model.

    An image becomes grayscale or RGB as the network takes it. One of another size than the input is resized
    as the preprocessing says, and stretched where that asks for the exact size. Preprocessing and class names
    are those of the manifest, or of the exported model's metadata; what is assumed of a model without them,
    the notes say. Raises DataError for a file that is no image, ModelError for a model that takes no images,
    and what `open_model` raises.
    """
    if top < 1:
        raise UsageError(f"top is {top}: it must be at least 1.")
    model = open_model(source, which=which, device=device)
    return [_predict(model, Path(image), top) for image in images]


def evaluate(
    source: Source,
    data: Dataset | str | os.PathLike[str],
    *,
    which: Which = "best",
    device: str = "auto",
    batch_size: int = 256,
) -> dict[str, float]:
    """Metrics over the test split of `data` (a data set, or what `cnnc.data.load` takes).

    A run or a bundle is evaluated by its eval.onnx. An .onnx model is by its outputs: mean loss (for classes
    the cross-entropy), accuracy, and with many classes top-5 accuracy. Raises DataError where the data
    doesn't fit the network, and what `open_model` raises.
    """
    if not _is_file(source):
        trained = Trained.open(source, which)
        manifest = trained.bundle.manifest
        dataset = data if isinstance(data, Dataset) else load_for(manifest, data)
        check(dataset, manifest)
        return evaluate_bundle(
            trained.bundle, trained.state, dataset.test, device=device, batch_size=batch_size
        )
    model = open_model(source, device=device)
    if not isinstance(data, Dataset):
        channels, size = model.image_size()
        data = load(
            data,
            classes=model.label_classes,
            channels=channels,
            size=size,
            preprocessing=model.preprocessing,
        )
    return _evaluate_model(model, data, batch_size)


def open_model(source: Source, *, which: Which = "best", device: str = "auto") -> InferenceModel:
    """The inference model of a run, a bundle or an .onnx file.

    Raises RunError or BundleError for a damaged folder, ModelError for a file that is no ONNX model,
    ProviderError for a `device` that can't be had.
    """
    if isinstance(source, str | os.PathLike) and _is_file(source):
        return InferenceModel.open(source, device)
    trained = Trained.open(source, which)
    manifest = trained.bundle.manifest
    model = finished(trained_model(trained), manifest.name, OPSET, metadata(manifest, embedded=False))
    return InferenceModel.open(model.SerializeToString(), device, trained.where)


def _is_file(source: Source) -> bool:
    """Whether `source` is meant as a model rather than a folder."""
    if isinstance(source, Bundle | Run):
        return False
    path = Path(source)
    return path.is_file() or (path.suffix == ".onnx" and not path.is_dir())


def _predict(model: InferenceModel, path: Path, top: int) -> Prediction:
    (pixels, done), notes = _pixels(model, path), model.notes
    found = zip(model.heads, model.all(pixels[None]), strict=True)
    scores = {head.name: _scores(head, values[0], top, model.where) for head, values in found}
    return Prediction(str(path), next(iter(scores.values())), notes + done, scores if len(scores) > 1 else {})


def _scores(head: ModelOutput, values: Array, top: int, where: str) -> tuple[Score, ...]:
    if values.ndim != 1:
        called = f" '{head.name}'" if head.name else ""
        raise ModelError(
            f"its output{called} for one image is {list(values.shape)}, not a vector of classes.", where=where
        )
    order = np.arange(len(values))
    if head.activation != "identity":
        order = np.argsort(-values, kind="stable")[:top]
    names = head.classes if len(head.classes) == len(values) else tuple(map(str, range(len(values))))
    return tuple(Score(int(i), names[i], float(values[i])) for i in order)


def _pixels(model: InferenceModel, path: Path) -> tuple[Array, tuple[str, ...]]:
    """An image file as the model takes it, and what was done to its size."""
    channels, size = model.image_size()
    form = Form.of(channels, size, model.preprocessing)
    if form.resize == "exact":
        form = replace(form, resize="stretch")
    data = read_bytes(path)
    stored = read_header(data, str(path)).size
    notes: tuple[str, ...] = ()
    if size and stored != size:
        notes = (f"{RESIZED[form.resize]} {stored[0]}×{stored[1]} (height × width) to {size[0]}×{size[1]}",)
    return decode(data, form, str(path)), notes


def _evaluate_model(model: InferenceModel, dataset: Dataset, batch_size: int) -> dict[str, float]:
    split = dataset.test
    targets_of = [
        _target(model, index, dataset, split.where or f"{dataset.name}, test")
        for index in range(len(model.heads))
    ]
    if PREPROCESSING in model.session.metadata:  # of another model only who asks knows what it takes
        check_scaled(split.images, model.preprocessing, split.where or f"{dataset.name}, test")
    total, names = Accumulator(), dict[str, None]()
    for batch in batches(split, batch_size):
        stored = batch.targets
        for head, target, output in zip(model.heads, targets_of, model.all(batch.images), strict=True):
            labels = targets(stored[target.array], target)
            for name, function in _measures(head, output.shape[1:2]).items():
                each = measured(function, output, labels, target.ignored)
                total.add({name: (float(each.sum()), each.size)})
                names[name] = None
    return total.values(MetricSpec(name, "higher") for name in names)


def _target(model: InferenceModel, index: int, dataset: Dataset, where: str) -> TargetSpec:
    """What an output is compared with. Raises DataError where the data don't have it."""
    head, shape = model.heads[index], model.session.outputs[index].shape
    target = TargetSpec("target", head.kind, "float32", shape, array=head.array)
    if head.kind == "class":
        target = TargetSpec("label", head.kind, "int64", (shape[0], *shape[2:]), head.ignored, head.array)
    classes = shape[1] if len(shape) > 1 else shape[-1]
    check_split(dataset.test, model.input, target, classes if isinstance(classes, int) else None, where)
    if head.kind == "class" and head.array == LABELS:
        check_names(dataset.classes, head.classes, where)
    return target


def _measures(head: ModelOutput, classes: tuple[int, ...]) -> dict[str, Measure]:
    names = ["loss", "accuracy"]
    if classes and classes[0] >= MANY_CLASSES:
        names.append("top5_accuracy")
    prefix = f"{head.name}_" if head.name else ""
    return {prefix + name: function for name in names if (function := measure(name, head.kind))}
