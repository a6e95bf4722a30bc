"""What a manifest is made of: tensors, state, heads and their targets, metrics, bodies, machine, memory."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

Role = Literal["parameter", "buffer", "slot", "accumulator", "average", "counter"]
Resize = Literal["exact", "stretch", "crop", "pad"]


@dataclass(frozen=True)
class TensorSpec:
    """A graph input or output. `dtype` is NumPy's name; a dimension is a size or a symbol such as ``"N"``."""

    name: str
    dtype: str
    shape: tuple[int | str, ...]


@dataclass(frozen=True)
class Preprocessing:
    """How a stored image becomes the graph's input: ``(uint8 · scale - mean) / std``, per channel.

    `mean` and `std` are empty (0 and 1) or have one number a channel. Floating-point data is taken as
    already scaled: only `mean` and `std` apply. An image file of another size than the input is first brought
    to it as `resize` says: ``exact`` files must have it, ``stretch`` ignores their proportions, ``crop``
    scales the largest centred rectangle of the input's proportions (the share `crop` of its height and
    width), ``pad`` adds black margins. Resampling is bilinear, averaging where it shrinks.
    """

    scale: float = 1.0 / 255.0
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    resize: Resize = "exact"
    crop: float = 1.0


@dataclass(frozen=True)
class StateEntry:
    """One tensor of the state.

    A ``parameter`` is trained; a ``buffer`` (running statistics) is updated by the forward pass; a ``slot``
    belongs to the optimizer and to the parameter that `of` names, an ``accumulator`` holds the sum of its
    gradients since the last update, an ``average`` is the moving average of the parameter or buffer that `of`
    names; the ``counter`` counts finished steps. `initial` describes the distribution of its first value (see
    `cnnc.initial`); `offset` is where a parameter's gradient begins in the flat gradient, in elements; a
    frozen parameter (`trainable` false) has none and comes back unchanged.
    """

    name: str
    role: Role
    dtype: str
    shape: tuple[int, ...]
    initial: dict[str, Any]
    of: str | None = None
    trainable: bool = True
    offset: int | None = None

    @property
    def size(self) -> int:
        """Number of elements."""
        return int(np.prod(self.shape, dtype=np.int64))


@dataclass(frozen=True)
class AdapterSpec:
    """A low-rank addition to a parameter: `weight` + `scale` · (`left` · `right`), in the weight's shape.

    train.onnx, grad.onnx and eval.onnx compute the sum, named ``adapted/<weight>``; infer.onnx has it in
    place of the weight. `left` is [first axis, rank], `right` [rank, all other axes].
    """

    weight: str
    left: str
    right: str
    scale: float


@dataclass(frozen=True)
class MetricSpec:
    """A metric of train.onnx and eval.onnx, made of a sum and a count that add up over batches.

    These are the outputs ``metrics/<counted>/sum`` and ``…/count``; metrics made of the same ones share them.
    The value of a ``mean`` is Σ sum / Σ count, that of ``psnr`` -10 · log₁₀ of it. A ``total`` is the sum of
    the metrics that `parts` names, each times its weight: the loss of several outputs. The others are made of
    the int64 matrix [C, C] of answers, rows labels and columns predictions: ``iou``, ``precision`` and
    ``recall`` of the class `label`, or their mean over the classes that occur; ``confusion_matrix`` is itself
    no number.
    """

    name: str
    better: Literal["higher", "lower"]
    kind: Literal["mean", "psnr", "iou", "precision", "recall", "confusion_matrix", "total"] = "mean"
    source: str = ""
    label: int | None = None
    parts: dict[str, float] = field(default_factory=dict)

    @property
    def counted(self) -> str:
        """The name in the graphs' outputs: `source`, or its own."""
        return self.source or self.name


@dataclass(frozen=True)
class TargetSpec:
    """What the loss compares with: the graph input `name`.

    ``class`` labels are integers in [0, classes), one for each example, shape [N], or each pixel, [N, H, W];
    those equal to `ignored` count for nothing. ``binary`` targets are floats in [0, 1], ``distribution``
    targets such that add up to 1 along axis 1, and ``value`` targets any floats, all of the output's shape.
    `array` is what data calls them.
    """

    name: str
    kind: Literal["class", "binary", "distribution", "value"]
    dtype: str
    shape: tuple[int | str, ...]
    ignored: int | None = None
    array: str = "y"


@dataclass(frozen=True)
class HeadSpec:
    """One output of the network: what infer.onnx gives, and what it is compared with in training.

    `output` is the output of infer.onnx and `activation` what it applies to the network's value (``softmax``,
    ``sigmoid`` or ``identity``). `name` tells several outputs apart, and is empty where there is one. Heads
    may have the same `target`.
    """

    name: str
    output: TensorSpec
    activation: Literal["softmax", "sigmoid", "identity"]
    target: TargetSpec
    classes: tuple[str, ...]
    loss: dict[str, Any]


@dataclass(frozen=True)
class FunctionSpec:
    """Which body a gradient op got: `node` of train.onnx calls `function`, the `body` of gradient op `op`."""

    node: str
    op: str
    body: str
    function: str


@dataclass(frozen=True)
class Machine:
    """The machine that a tuned bundle's train.onnx was chosen on, and may be fast or able to run on alone.

    `runtime` is ONNX Runtime's version, `options` the session's settings that go with the step. Where there
    are `lanes`, more than 1, lane.onnx and join.onnx are the same step and faster: see `cnnc.runtime.tuned`.
    """

    processor: str
    runtime: str
    threads: int
    options: dict[str, str]
    lanes: int = 1


@dataclass(frozen=True)
class MemorySpec:
    """What was done so that the step fits into `limit` bytes at the batch size `batch`.

    `estimate` is what a process that trains takes beside its data set. `recomputed` counts the activations
    that are computed again rather than kept, `chunks` the parts in which a batch goes.
    """

    limit: int
    batch: int
    estimate: int
    recomputed: int
    chunks: int
