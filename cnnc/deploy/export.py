"""From a run or a bundle to one .onnx file for inference, proved against the run's own evaluation."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import onnx

from cnnc.data import Dataset
from cnnc.deploy.folding import fold_batch_normalization
from cnnc.deploy.inference import metadata
from cnnc.deploy.inference_graph import embed, finished, trained_model
from cnnc.deploy.proof import choose_examples, prove
from cnnc.deploy.trained import Source, Trained, Which
from cnnc.errors import ModelError, os_errors_as
from cnnc.opset import OPSET
from cnnc.runtime.belongings import check_unowned
from cnnc.runtime.files import write_whole

TOLERANCE = 1e-4
"""Folding rounds each layer anew: float32 outputs move by about 1e-6, those of deep networks by 1e-5."""


@dataclass(frozen=True)
class ExportReport:
    """What was exported, and how it was proved.

    `size` is in bytes, `folded` the number of batch normalisations folded away. `examples` images of `data`
    went through the file: `difference` is the largest one of an output to the network as it was trained,
    relative to the largest output, and `metrics` holds each metric of the file beside the one of the
    training run's own evaluation (empty where the images were random).
    """

    path: Path
    size: int
    opset: int
    nodes: int
    folded: int
    data: str
    examples: int
    difference: float
    metrics: dict[str, tuple[float, float]]
    notes: tuple[str, ...]

    def record(self) -> dict[str, Any]:
        """The report as one JSON object."""
        metrics = {name: {"exported": ours, "run": theirs} for name, (ours, theirs) in self.metrics.items()}
        return {**asdict(self), "path": str(self.path), "metrics": metrics}


def export(
    source: Source,
    path: str | os.PathLike[str],
    *,
    which: Which = "best",
    opset: int | None = None,
    embed_preprocessing: bool = False,
    dataset: Dataset | None = None,
    tolerance: float = TOLERANCE,
) -> ExportReport:
    """Write the inference model of `source` to `path`, once it has been proved.

    The model takes images [N, C, H, W] with a symbolic batch: float32 that is preprocessed, or with
    `embed_preprocessing` uint8 as it comes from an image file. Batch normalisation is folded, the final
    softmax or sigmoid applied; `cnnc.deploy.inference` describes its metadata.

    It is proved on the test split of `dataset`, or else of the data the run was trained on, or else, where
    that is not at hand either, on random images. An earlier model at `path` is replaced, unless it belongs to
    a bundle or a run. Raises ParityError where outputs or metrics disagree, ModelError for an opset the model
    can't have or a path that can't be written, DataError where `dataset` doesn't fit, RunError or BundleError
    for a damaged source. Then nothing is written.
    """
    target = Path(path)
    _check_replaceable(target)
    check_unowned(target, ModelError)
    trained = Trained.open(source, which)
    manifest, opset = trained.bundle.manifest, OPSET if opset is None else opset
    examples = choose_examples(trained, dataset, pixels=embed_preprocessing)
    model = trained_model(trained)
    folded = fold_batch_normalization(model.graph)
    if embed_preprocessing:
        embed(model.graph, manifest.preprocessing)
    model = finished(model, manifest.name, opset, metadata(manifest, embedded=embed_preprocessing))
    data = model.SerializeToString(deterministic=True)
    proof = prove(trained, data, examples.split)
    proof.check(len(examples.split), tolerance)
    with os_errors_as(
        ModelError, "the model can't be written", where=target, hint="Choose another file with -o."
    ):
        target.parent.mkdir(parents=True, exist_ok=True)
        write_whole(target, data)
    return ExportReport(
        path=target,
        size=len(data),
        opset=opset,
        nodes=len(model.graph.node),
        folded=folded,
        data=examples.words,
        examples=len(examples.split),
        difference=proof.difference,
        metrics={} if examples.random else proof.metrics,
        notes=examples.notes,
    )


def _check_replaceable(path: Path) -> None:
    """Raise ModelError unless there is nothing at `path`, an empty file, or a model."""
    if path.is_dir():
        raise ModelError("this is a folder.", where=str(path), hint="Name a file, such as model.onnx.")
    if not path.exists() or (path.is_file() and _is_model(path)):
        return
    raise ModelError(
        "a file of this name exists, and it is no ONNX model.",
        where=str(path),
        hint="Choose another name with -o.",
    )


def _is_model(path: Path) -> bool:
    """Whether a file is an ONNX model, or empty."""
    try:
        return not path.stat().st_size or bool(onnx.load(path, load_external_data=False).graph.node)
    except Exception:  # protobuf's errors are not onnx's to name
        return False
