"""What a trained network says of the whole test split: the confusion matrix, and where it is most wrong."""

from __future__ import annotations

import heapq
from dataclasses import dataclass, field

import numpy as np

from cnnc.bundle import Array
from cnnc.data import Dataset, batches
from cnnc.data.dataset import numerals
from cnnc.data.parts import limited
from cnnc.deploy.predict import open_model
from cnnc.deploy.trained import Which
from cnnc.report.figure import Matrix
from cnnc.runtime import Run

SHOWN = 24


@dataclass(frozen=True)
class Wrong:
    """A misjudged image as it is stored, [C, H, W]; scores are the network's for the two classes."""

    image: Array
    index: int
    label: str
    prediction: str
    label_score: float
    score: float


@dataclass(frozen=True)
class Answers:
    """`matrix` counts all answers; `wrong` are the images whose own class got the lowest scores."""

    which: Which
    matrix: Matrix
    wrong: tuple[Wrong, ...]
    probabilities: bool


def answers(run: Run, dataset: Dataset, *, which: Which = "best", shown: int = SHOWN) -> Answers | None:
    """Run the network over the test split, as far as the run uses it; None where its targets are no classes.

    Of networks that judge each pixel there are no single wrong images. Raises what `open_model` raises.
    """
    manifest = run.bundle.manifest
    if manifest.target.kind != "class":
        return None
    model = open_model(run, which=which, device=run.settings.device)
    size = manifest.output.shape[1]
    assert isinstance(size, int)
    found = _Found(size, shown)
    offset = 0
    test = limited(dataset.test, run.settings.limit, run.settings.seed or 0)
    for batch in batches(test, run.settings.eval_batch_size):
        if not len(batch):  # all of its images are bad, and are skipped
            continue
        found.add(
            model.outputs(batch.images),
            batch.images,
            batch.targets[manifest.target.array],
            manifest.target.ignored,
            offset,
        )
        offset += len(batch)
    names = manifest.classes or dataset.classes
    names = names if len(names) == size else numerals(size)
    counts = tuple(tuple(map(int, row)) for row in found.counts)
    matrix = Matrix("confusion_matrix", "Confusion matrix", tuple(names), counts)
    return Answers(which, matrix, found.wrong(names), model.activation == "softmax")


@dataclass
class _Found:
    classes: int
    shown: int
    heap: list[tuple[float, int, Array, int, int, float]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.counts = np.zeros((self.classes, self.classes), np.int64)

    def add(self, scores: Array, images: Array, labels: Array, ignored: int | None, offset: int) -> None:
        """Take in one batch of scores [n, C, …] and labels [n, …]."""
        predictions = scores.argmax(axis=1)
        known = np.ones(labels.shape, bool) if ignored is None else labels != ignored
        pairs = labels[known].astype(np.int64) * self.classes + predictions[known]
        self.counts += np.bincount(pairs, minlength=self.classes**2).reshape(self.counts.shape)
        if labels.ndim > 1:
            return
        for i in np.flatnonzero(known & (predictions != labels)):
            label, prediction = int(labels[i]), int(predictions[i])
            low = float(scores[i, label])
            entry = (-low, -(offset + int(i)), images[i], label, prediction, float(scores[i, prediction]))
            if len(self.heap) < self.shown:
                heapq.heappush(self.heap, entry)
            elif entry[:2] > self.heap[0][:2]:
                heapq.heapreplace(self.heap, entry)

    def wrong(self, names: tuple[str, ...]) -> tuple[Wrong, ...]:
        """The worst, the worst first."""
        ordered = sorted(self.heap, key=lambda entry: entry[:2], reverse=True)
        return tuple(
            Wrong(np.asarray(image), -index, names[label], names[prediction], -low, score)
            for low, index, image, label, prediction, score in ordered
        )
