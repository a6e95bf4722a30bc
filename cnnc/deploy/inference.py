"""Inference models: what `cnnc export` writes, or any other .onnx that takes images.

An exported model says in its ``metadata_props`` what a program that runs it must know:

``cnnc.activation``
    What the output is: ``softmax`` (probabilities of the classes), ``sigmoid`` (of each output by itself) or
    ``identity`` (values).
``cnnc.preprocessing``
    JSON, ``{"scale": s, "mean": [...], "std": [...]}``: the input is (pixel · s - mean) / std, by channel, of
    a stored image [C, H, W] in 0…255. Where preprocessing is embedded in the graph, the input is uint8 and
    this is what is left to do: nothing. ``resize`` and ``crop``, where there are any, say how an image gets
    the input's size first (see `cnnc.bundle.Preprocessing`).
``cnnc.classes``
    JSON, the names of the classes in the order of the outputs: the network's own, or those of the data it was
    trained on; absent where neither names any.
``cnnc.ignored``
    The label that the loss ignores, and an evaluation too: a whole number, absent where there is none.
``cnnc.outputs``
    Of a model with several outputs: JSON, for each of them, in the file's order, its ``name``, ``activation``
    and ``classes``, the label ``ignored`` or null, and the ``array`` of a data set that it is compared with.
    Activation, classes and ignored label above are the first's.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from cnnc.bundle import Array, HeadSpec, Manifest, Preprocessing, Resize, TensorSpec
from cnnc.data import preprocess
from cnnc.data.dataset import LABELS
from cnnc.data.feeds import check_shape
from cnnc.deploy.scores import Kind
from cnnc.errors import BundleError, DataError, ModelError, os_errors_as
from cnnc.runtime import InferSession, Provider

ACTIVATION, PREPROCESSING, CLASSES = "cnnc.activation", "cnnc.preprocessing", "cnnc.classes"
IGNORED, OUTPUTS = "cnnc.ignored", "cnnc.outputs"
DTYPES = ("float32", "uint8", "float16", "float64")

Activation = Literal["softmax", "sigmoid", "identity"]


def metadata(manifest: Manifest, *, embedded: bool) -> dict[str, str]:
    """The metadata of a model exported from this bundle."""
    left = manifest.preprocessing
    if embedded:
        left = replace(left, scale=1.0, mean=(), std=())
    steps = asdict(left)
    if left.resize == "exact":
        del steps["resize"], steps["crop"]
    record = {ACTIVATION: manifest.activation, PREPROCESSING: json.dumps(steps)}
    if manifest.classes:
        record[CLASSES] = json.dumps(manifest.classes)
    if manifest.target.ignored is not None:
        record[IGNORED] = str(manifest.target.ignored)
    if manifest.further:
        record[OUTPUTS] = json.dumps([_record(head) for head in manifest.heads])
    return record


def _record(head: HeadSpec) -> dict[str, Any]:
    return {
        "name": head.name,
        "activation": head.activation,
        "classes": head.classes,
        "array": head.target.array,
        "ignored": head.target.ignored,
    }


@dataclass(frozen=True)
class ModelOutput:
    """What is known of one output.

    `array` is that of a data set it is compared with, where labels that are `ignored` count for nothing.
    """

    name: str
    activation: Activation
    classes: tuple[str, ...]
    array: str = LABELS
    ignored: int | None = None

    @property
    def kind(self) -> Kind:
        """The kind of targets that it is compared with."""
        kinds: dict[Activation, Kind] = {"softmax": "class", "sigmoid": "binary", "identity": "value"}
        return kinds[self.activation]


@dataclass(frozen=True, eq=False)
class InferenceModel:
    """A model that is ready to run, and what is known of its input and outputs. Make one with `open`.

    `heads` are the outputs that are known, the first one first; a model that tells of none has one. `certain`
    is False for a model that doesn't say what its output is: where it is taken for classes, it may still be
    logits. `notes` tell what had to be assumed.
    """

    where: str
    session: InferSession
    heads: tuple[ModelOutput, ...]
    certain: bool
    preprocessing: Preprocessing
    notes: tuple[str, ...] = ()

    @classmethod
    def open(
        cls, model: str | os.PathLike[str] | bytes, device: str | Provider = "auto", where: str = "the model"
    ) -> InferenceModel:
        """Load a model: a file, or its bytes, which messages call `where`.

        Raises ModelError where it is no whole ONNX model or not one that takes one tensor, ProviderError for
        a device that can't be had.
        """
        if not isinstance(model, bytes):
            where, model = str(model), Path(model)
            if not model.is_file():
                problem = "this is not a file." if model.exists() else "there is no such model."
                raise ModelError(problem, where=where, hint="Write one with `cnnc export`.")
            with os_errors_as(ModelError, "this can't be read", where=where):
                model.open("rb").close()
        try:
            session = InferSession(model, device, stop_spinning=True)
        except BundleError as error:
            raise ModelError(
                f"this is no ONNX model that ONNX Runtime can load: {error.what.partition(': ')[2]}",
                where=where,
                hint="It may be truncated or damaged, or something else than its name says.",
            ) from error
        if len(session.inputs) != 1 or not session.outputs:
            names = ", ".join(spec.name for spec in session.inputs[:5])
            raise ModelError(
                f"this model has {len(session.inputs)} inputs ({names}).",
                where=where,
                hint="An inference model takes one tensor; for a training graph name its bundle.",
            )
        if session.inputs[0].dtype not in DTYPES:
            raise ModelError(
                f"its input '{session.inputs[0].name}' is {session.inputs[0].dtype}.",
                where=where,
                hint=f"Images go into a model that takes {', '.join(DTYPES)}.",
            )
        try:
            return cls(where, session, *_described(session))
        except (ValueError, LookupError, TypeError, RecursionError) as error:
            raise ModelError(f"its metadata can't be read: {error}.", where=where) from error

    @property
    def input(self) -> TensorSpec:
        """The input as the file declares it, such as float32 [N, C, H, W]."""
        return self.session.inputs[0]

    @property
    def output(self) -> TensorSpec:
        """The first output as the file declares it."""
        return self.session.outputs[0]

    @property
    def activation(self) -> Activation:
        """What the first output is."""
        return self.heads[0].activation

    @property
    def classes(self) -> tuple[str, ...]:
        """The class names of the first output."""
        return self.heads[0].classes

    @property
    def label_classes(self) -> tuple[str, ...]:
        """The class names of the first output that is compared with the labels of data."""
        telling = (head for head in self.heads if head.kind == "class" and head.array == LABELS)
        return next((head.classes for head in telling if head.classes), ())

    def image_size(self) -> tuple[int, tuple[int, int] | None]:
        """Channels, and (height, width) where they are fixed. Raises ModelError for another input."""
        match self.input.shape:
            case (_, (1 | 3) as channels, int(height), int(width)):
                return channels, (height, width)
            case (_, (1 | 3) as channels, _, _):
                return channels, None
        raise ModelError(
            f"its input '{self.input.name}' is {_shown(self.input.shape)}.",
            where=self.where,
            hint="Image files go into a model that takes [N, C, H, W] with 1 or 3 channels C.",
        )

    def outputs(self, images: Array) -> Array:
        """The first of `all`."""
        return self.all(images)[0]

    def all(self, images: Array) -> list[Array]:
        """Each of `heads` [n, …] for stored images [n, C, H, W], before any preprocessing.

        Raises DataError where the images don't fit the input, ModelError where ONNX Runtime fails.
        """
        feeds = self._prepared(images)
        try:
            if self.input.shape[0] == 1:
                singly = [self.session.all(feeds[i : i + 1]) for i in range(len(feeds))]
                values = [np.concatenate(parts) for parts in zip(*singly, strict=True)]
            else:
                values = self.session.all(feeds)
        except ModelError as error:
            raise ModelError(error.what, where=self.where) from error
        values = values[: len(self.heads)]
        return values if self.certain or self.activation != "softmax" else [_probabilities(values[0])]

    def _prepared(self, images: Array) -> Array:
        if self.input.dtype != "uint8":
            return preprocess(images, self.preprocessing, self.input).astype(self.input.dtype, copy=False)
        check_shape(images, self.input)
        if images.dtype.kind == "f":
            raise DataError(
                "the images are floats that are scaled already, and this model takes pixels as uint8.",
                where=self.where,
                hint="Give images in 0…255, or export the model without its preprocessing.",
            )
        return np.ascontiguousarray(images, dtype=np.uint8)


def _described(
    session: InferSession,
) -> tuple[tuple[ModelOutput, ...], bool, Preprocessing, tuple[str, ...]]:
    """The fields of a model from `heads` on: what its metadata say, or what is assumed."""
    known, spec, notes = session.metadata, session.inputs[0], []
    activation = known.get(ACTIVATION)
    if certain := activation is not None:
        if activation not in get_args(Activation):
            raise ValueError(f"{ACTIVATION} is '{activation}'")
    else:
        shape = session.outputs[0].shape
        activation = "softmax" if len(shape) == 2 and shape[1] != 1 else "identity"
        taken = "logits or probabilities of classes" if activation == "softmax" else "plain values"
        notes.append(f"the model doesn't say what its output is: taken for {taken}")
    if PREPROCESSING in known:
        preprocessing = _preprocessing(json.loads(known[PREPROCESSING]), spec)
    elif spec.dtype == "uint8":
        preprocessing = Preprocessing(scale=1.0)
    else:
        preprocessing = Preprocessing()
        notes.append("the model doesn't say how images are prepared: pixels scaled to 0…1")
    first = {
        "name": "",
        "activation": activation,
        "classes": json.loads(known.get(CLASSES, "[]")),
        "ignored": json.loads(known.get(IGNORED, "null")),
    }
    heads = [_head(record) for record in json.loads(known.get(OUTPUTS, "[]"))] or [_head(first)]
    if len(heads) > len(session.outputs):
        raise ValueError(f"{OUTPUTS} tells of {len(heads)} outputs, and there are {len(session.outputs)}")
    return tuple(heads), certain, preprocessing, tuple(notes)


def _head(record: dict[str, Any]) -> ModelOutput:
    activation, classes = record["activation"], record["classes"]
    if activation not in get_args(Activation):
        raise ValueError(f"{ACTIVATION} is '{activation}'")
    if not isinstance(classes, list) or not all(isinstance(name, str) for name in classes):
        raise ValueError(f"{CLASSES} is {classes}")
    ignored = record.get("ignored")
    if not (ignored is None or type(ignored) is int):
        raise ValueError(f"{IGNORED} is {ignored!r}")
    array = str(record.get("array", LABELS))
    return ModelOutput(str(record["name"]), activation, tuple(classes), array, ignored)


def _preprocessing(record: dict[str, Any], spec: TensorSpec) -> Preprocessing:
    """From JSON, checked against the number of channels."""
    mean, std = (tuple(map(float, record[name])) for name in ("mean", "std"))
    for numbers in (mean, std):
        if numbers and len(numbers) != spec.shape[1]:
            raise ValueError(f"{PREPROCESSING} has {len(numbers)} numbers for {spec.shape[1]} channels")
    resize, crop = record.get("resize", "exact"), float(record.get("crop", 1.0))
    if resize not in get_args(Resize) or not 0 < crop <= 1:
        raise ValueError(f"{PREPROCESSING} resizes by {resize!r} with crop {crop}")
    return Preprocessing(float(record["scale"]), mean, std, resize, crop)


def _probabilities(values: Array) -> Array:
    """Rows that are no probabilities yet are logits: their softmax."""
    if (values >= 0).all() and np.allclose(values.sum(axis=1), 1.0, atol=1e-3):
        return values
    powers = np.exp(values - values.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))


def _shown(shape: tuple[int | str, ...]) -> str:
    return f"[{', '.join(map(str, shape))}]"
