"""What a trained network says of the whole test split: confusion matrices, and where it is most wrong."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from cnnc.bundle import Array, HeadSpec
from cnnc.data import Dataset, batches, targets
from cnnc.data.dataset import LABELS, numerals
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
    """What one output says: of several, the one called `output`.

    `matrix` counts all answers; `wrong` are the images whose own class got the lowest scores.
    """

    output: str
    which: Which
    matrix: Matrix
    wrong: tuple[Wrong, ...]
    probabilities: bool


def answers(run: Run, dataset: Dataset, *, which: Which = "best", shown: int = SHOWN) -> tuple[Answers, ...]:
    """Run the network over the test split, as far as the run uses it: what each output that chooses says.

    Such outputs are those compared with classes or with distributions over them, and those of one yes or no,
    which are two classes. Of outputs that judge each pixel there are no single wrong images. Raises what
    `open_model` raises.
    """
    heads = run.manifest.heads
    found = {place: _Found.of(head, shown) for place, head in enumerate(heads) if _chooses(head)}
    if not found:
        return ()
    model = open_model(run, which=which, device=run.settings.device)
    offset = 0
    test = limited(dataset.test, run.settings.limit, run.settings.seed or 0)
    for batch in batches(test, run.settings.eval_batch_size):
        if not len(batch):  # all of its images are bad, and are skipped
            continue
        outputs, stored = model.all(batch.images), batch.targets
        for place, each in found.items():
            target = heads[place].target
            each.add(outputs[place], batch.images, targets(stored[target.array], target), offset)
        offset += len(batch)
    return tuple(each.answers(dataset, which) for each in found.values())


def _chooses(head: HeadSpec) -> bool:
    return head.target.kind in CHOICES and (head.target.kind != "binary" or head.output.shape[1] == 1)


def _one_of_two(scores: Array, labels: Array) -> tuple[Array, Array]:
    """Of a probability of yes [n, 1, …]: the scores of no and yes, and 0 or 1."""
    return np.concatenate([1 - scores, scores], axis=1), (labels[:, 0] > 0.5).astype(np.int64)


CHOICES: dict[str, Callable[[Array, Array], tuple[Array, Array]]] = {
    "class": lambda scores, labels: (scores, labels),
    "distribution": lambda scores, labels: (scores, labels.argmax(axis=1)),
    "binary": _one_of_two,
}
"""By the kind of target: scores [n, classes, …] and labels [n, …] of outputs and targets."""


@dataclass
class _Found:
    head: HeadSpec
    classes: int
    shown: int
    heap: list[tuple[float, int, Array, int, int, float]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.counts = np.zeros((self.classes, self.classes), np.int64)

    @classmethod
    def of(cls, head: HeadSpec, shown: int) -> _Found:
        """Nothing yet, of an output."""
        size = head.output.shape[1]
        assert isinstance(size, int)
        return cls(head, 2 if head.target.kind == "binary" else size, shown)

    def add(self, scores: Array, images: Array, labels: Array, offset: int) -> None:
        """Take in one batch of outputs and targets."""
        scores, labels = CHOICES[self.head.target.kind](scores, labels)
        ignored = self.head.target.ignored
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

    def answers(self, dataset: Dataset, which: Which) -> Answers:
        """What was found, in the words of the network, or of the data."""
        name = self.head.name
        names = self.head.classes or (dataset.classes if self.head.target.array == LABELS else ())
        names = tuple(names) if len(names) == self.classes else numerals(self.classes)
        counts = tuple(tuple(map(int, row)) for row in self.counts)
        title = f"Confusion matrix of {name}" if name else "Confusion matrix"
        matrix = Matrix(f"{name}_confusion_matrix".lstrip("_"), title, names, counts)
        return Answers(name, which, matrix, self._wrong(names), self.head.activation != "identity")

    def _wrong(self, names: tuple[str, ...]) -> tuple[Wrong, ...]:
        """The worst, the worst first."""
        ordered = sorted(self.heap, key=lambda entry: entry[:2], reverse=True)
        return tuple(
            Wrong(np.asarray(image), -index, names[label], names[prediction], -low, score)
            for low, index, image, label, prediction, score in ordered
        )
