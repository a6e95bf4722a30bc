"""The proof of an exported model: its outputs and metrics beside those of the network as it was trained."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cnnc.bundle import Manifest, MetricSpec
from cnnc.data import Dataset, Split, batches, check, load_for, preprocess, targets
from cnnc.deploy.inference import InferenceModel
from cnnc.deploy.inference_graph import trained_model
from cnnc.deploy.probe import probe
from cnnc.deploy.scores import LARGEST_LOSS, Measure, measure
from cnnc.deploy.trained import Trained
from cnnc.errors import DataError, ParityError
from cnnc.runtime import EvalSession, InferSession, choose
from cnnc.runtime.evaluation import Accumulator

PROBES, BATCH = 64, 256
MEASURED = ("SoftmaxCrossEntropy", "PixelCrossEntropy", "MeanSquaredError")
"""The losses that `cnnc.deploy.scores` measures to the last digit."""


@dataclass(frozen=True, eq=False)
class Examples:
    """What a model is proved on: `split`, and what it is in words; targets of random images mean nothing."""

    split: Split
    words: str
    random: bool
    notes: tuple[str, ...] = ()


def choose_examples(trained: Trained, dataset: Dataset | None, *, pixels: bool) -> Examples:
    """The test split of `dataset`, or else of the run's own data, or else random images.

    With `pixels` only integers will do. Raises DataError where `dataset` doesn't fit the network; why the
    run's own data is not at hand goes to the notes.
    """
    manifest = trained.bundle.manifest
    notes: tuple[str, ...] = ()
    if dataset is not None:
        check(dataset, manifest)
    elif trained.run is not None:
        try:
            dataset = load_for(manifest, trained.run.settings.data)
            check(dataset, manifest)
        except DataError as error:
            dataset, notes = None, (f"The run's data is not at hand: {error}",)
    if dataset is not None and pixels and dataset.test.images.dtype.kind == "f":
        dataset, notes = None, ("The data is scaled already, and the exported model takes pixels.",)
    if dataset is None:
        return Examples(probe(manifest, PROBES, "export"), "random images", True, notes)
    return Examples(dataset.test, f"the test split of {dataset.name}", False, notes)


@dataclass(frozen=True)
class Proof:
    """How far an exported model and the network it was made of agree.

    `difference` is the largest one of an output, relative to the largest output; `metrics` holds each
    metric as the exported file has it, and as the training run's own evaluation has it.
    """

    difference: float
    metrics: dict[str, tuple[float, float]]

    def check(self, examples: int, tolerance: float) -> None:
        """Raise ParityError where they disagree.

        Metrics that count may differ by one example in a thousand: a near tie can fall either way.
        """
        if not self.difference <= tolerance:
            raise ParityError(
                f"the exported model's outputs differ from the trained network's by {self.difference:.2g} of "
                f"the largest output, the tolerance is {tolerance:.2g}; nothing was written.",
                hint="This should not happen: please report it with the bundle.",
            )
        for name, (exported, trained) in self.metrics.items():
            flips = (max(1, examples // 1000) + 0.5) / examples  # the half is for rounding
            allowed = tolerance * max(1.0, abs(trained)) if name == "loss" else flips
            if not abs(exported - trained) <= allowed:
                raise ParityError(
                    f"the exported model's {name} is {exported:.6g}, the training run's own evaluation says "
                    f"{trained:.6g} on the same {examples} examples; nothing was written.",
                    hint="This should not happen: please report it with the bundle.",
                )


def prove(trained: Trained, exported: bytes, split: Split) -> Proof:
    """Run the exported file, infer.onnx and eval.onnx with the trained state on the examples of `split`."""
    manifest, cpu = trained.bundle.manifest, choose("cpu")
    ours = InferenceModel.open(exported, cpu, "the exported model")
    plain = InferSession(trained_model(trained).SerializeToString(), cpu, stop_spinning=True)
    evaluation = EvalSession(trained.bundle, cpu)
    evaluation.use(trained.state)
    measures = _exact_measures(manifest)
    differences, sizes, clipped = [], [], False
    our_total, run_total = Accumulator(), Accumulator()
    for batch in batches(split, BATCH):
        images = preprocess(batch.images, manifest.preprocessing, manifest.input)
        labels = targets(batch.labels, manifest.target)
        outputs, expected = ours.outputs(batch.images), plain(images)
        differences.append(np.abs(outputs - expected).max())
        sizes.append(np.abs(expected).max())
        values = {name: function(outputs, labels) for name, function in measures.items()}
        our_total.add({name: (float(each.sum()), each.size) for name, each in values.items()})
        if manifest.target.kind == "class" and "loss" in values:
            clipped |= bool(values["loss"].max() > 0.9 * LARGEST_LOSS)
        run_total.add(evaluation.sums(images, labels))
    metrics = our_total.values(MetricSpec(name, "higher") for name in measures)
    theirs = run_total.values(manifest.scalar_metrics)
    return Proof(
        float(np.max(differences)) / float(np.max(sizes) or 1.0),
        {name: (value, theirs[name]) for name, value in metrics.items() if name != "loss" or not clipped},
    )


def _exact_measures(manifest: Manifest) -> dict[str, Measure]:
    """The metrics of the manifest that the outputs tell as exactly as the graph itself counts them.

    That leaves out the losses of probabilities close to 1, where 1 - p has lost its digits, those that are
    weighted, and metrics of labels that may count for nothing.
    """
    kind, loss = manifest.target.kind, manifest.loss
    if manifest.target.ignored is not None:
        return {}
    found = {metric.name: measure(metric.name, kind) for metric in manifest.metrics}
    if loss.get("name") not in MEASURED or loss.get("label_smoothing") or loss.get("class_weights"):
        found.pop("loss", None)
    return {name: function for name, function in found.items() if function}
