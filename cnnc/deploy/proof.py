"""The proof of an exported model: its outputs and metrics beside those of the network as it was trained."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from cnnc.bundle import Array, HeadSpec, Manifest, MetricSpec
from cnnc.data import Dataset, Split, batches, check, feed, load_for, synthetic_split
from cnnc.deploy.inference import InferenceModel
from cnnc.deploy.inference_graph import trained_model
from cnnc.deploy.scores import LARGEST_LOSS, Measure, measure, measured
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
        return Examples(synthetic_split(manifest, PROBES, "export"), "random images", True, notes)
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
            allowed = tolerance * max(1.0, abs(trained)) if name.endswith("loss") else flips
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
    heads = [_Measured(head, _exact_measures(head, manifest)) for head in manifest.heads]
    run_total = Accumulator()
    for batch in batches(split, BATCH):
        images, *given = feed(batch, manifest)
        labels = dict(zip([spec.name for spec in manifest.targets], given, strict=True))
        for head, output, expected in zip(heads, ours.all(batch.images), plain.all(images), strict=True):
            head.add(output, expected, labels[head.spec.target.name])
        run_total.add(evaluation.sums(images, *given))
    theirs = run_total.values(manifest.scalar_metrics)
    return Proof(
        max(head.difference for head in heads),
        {name: (value, theirs[name]) for head in heads for name, value in head.metrics().items()},
    )


@dataclass
class _Measured:
    """What one output of the exported model has been found to be so far."""

    spec: HeadSpec
    measures: dict[str, Measure]
    total: Accumulator = field(default_factory=Accumulator)
    distance: float = 0.0
    size: float = 0.0
    clipped: bool = False

    def add(self, output: Array, expected: Array, labels: Array) -> None:
        self.distance = max(self.distance, float(np.abs(output - expected).max()))
        self.size = max(self.size, float(np.abs(expected).max()))
        ignored = self.spec.target.ignored
        values = {
            name: measured(function, output, labels, ignored) for name, function in self.measures.items()
        }
        self.total.add({name: (float(each.sum()), each.size) for name, each in values.items()})
        loss = values.get(_named(self.spec, "loss"))
        if self.spec.target.kind == "class" and loss is not None and loss.size:
            self.clipped |= bool(loss.max() > 0.9 * LARGEST_LOSS)

    @property
    def difference(self) -> float:
        """The largest one, relative to the largest output."""
        return self.distance / (self.size or 1.0)

    def metrics(self) -> dict[str, float]:
        found = self.total.values(MetricSpec(name, "higher") for name in self.measures)
        loss = _named(self.spec, "loss")
        return {name: value for name, value in found.items() if name != loss or not self.clipped}


def _exact_measures(head: HeadSpec, manifest: Manifest) -> dict[str, Measure]:
    """The metrics of an output that it tells as exactly as the graph itself counts them.

    That leaves out the losses of probabilities close to 1, where 1 - p has lost its digits, and those that
    are weighted.
    """
    kind, loss = head.target.kind, head.loss
    prefix = _named(head, "")
    names = [metric.name for metric in manifest.metrics if metric.name.startswith(prefix)]
    found = {name: measure(name.removeprefix(prefix), kind) for name in names}
    if loss.get("name") not in MEASURED or loss.get("label_smoothing") or loss.get("class_weights"):
        found.pop(_named(head, "loss"), None)
    return {name: function for name, function in found.items() if function}


def _named(head: HeadSpec, name: str) -> str:
    """A metric of this output as the manifest calls it."""
    return f"{head.name}_{name}" if head.name else name
