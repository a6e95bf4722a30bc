"""The program: a network, its input, and how to train it. What a graph file exposes."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any, cast, get_args

import onnx_ir as ir

from cnnc.augment import Augmentation
from cnnc.bundle import Preprocessing, Resize, TargetSpec
from cnnc.checks import expect, field_error, identifier, integer, one_of, real
from cnnc.errors import GraphFileError, ShapeError
from cnnc.heads import Head, Heads, types_of
from cnnc.ir import Dim, Network, type_of
from cnnc.losses import Loss, Weighted
from cnnc.metrics import Metric
from cnnc.nn import Trace, Value
from cnnc.optim import Optimizer
from cnnc.program_heads import counted, heads_of
from cnnc.source import user_line
from cnnc.users_code import users_code

Model = Callable[[Value], Value | Sequence[Value] | Mapping[str, Value]]
"""A network: anything that makes of the input one output, several, or several by their names."""


@dataclass(frozen=True)
class Tensor:
    """The network's input: float32 of `shape`, the batch first as the symbol ``"N"``, images as [N, C, H, W].

    A stored image becomes (uint8 · scale - mean) / std, with one `mean` and `std` a channel or none. Image
    files of other sizes are an error (`resize` ``exact``), or are brought to this one: ``stretch``, ``crop``
    (the centre; its share `crop`, such as 0.875) or ``pad``. Raises ShapeError, GraphFileError.
    """

    name: str
    shape: tuple[Dim, ...]
    scale: float = 1.0 / 255.0
    mean: Sequence[float] = ()
    std: Sequence[float] = ()
    resize: str = "exact"
    crop: float = 1.0

    def __post_init__(self) -> None:
        identifier("Tensor", "the name", self.name)
        shape = self.shape
        if not isinstance(shape, tuple | list) or len(shape) < 2 or shape[0] != "N":
            raise ShapeError(
                f"Tensor '{self.name}': its shape {shape!r} does not begin with the batch.",
                where=user_line(),
                hint='Write ("N", channels, height, width), such as ("N", 1, 28, 28).',
            )
        sizes = [integer(f"Tensor '{self.name}'", "each size after N", d, 1, ShapeError) for d in shape[1:]]
        real(f"Tensor '{self.name}'", "scale", self.scale, positive=True)
        one_of(f"Tensor '{self.name}'", "resize", self.resize, get_args(Resize))
        if real(f"Tensor '{self.name}'", "crop", self.crop, positive=True) > 1:
            raise GraphFileError(
                f"Tensor '{self.name}': crop is {self.crop:g}.",
                where=user_line(),
                hint="It is the share of the image that is kept, above 0 and up to 1.",
            )
        object.__setattr__(self, "shape", ("N", *sizes))
        object.__setattr__(self, "mean", self._by_channel("mean", self.mean, least=-math.inf))
        object.__setattr__(self, "std", self._by_channel("std", self.std, positive=True))

    def _by_channel(self, name: str, numbers: Sequence[float], **bounds: Any) -> tuple[float, ...]:
        owner, channels = f"Tensor '{self.name}'", self.shape[1]
        if not isinstance(numbers, tuple | list) or len(numbers) not in (0, channels):
            raise ShapeError(
                f"{owner}: {name} is {numbers!r}, for {channels} channels.",
                where=user_line(),
                hint="Give a number for each channel, or none.",
            )
        return tuple(real(owner, name, number, **bounds) for number in numbers)

    @property
    def preprocessing(self) -> Preprocessing:
        """As the manifest has it."""
        resize = cast("Resize", self.resize)
        return Preprocessing(float(self.scale), tuple(self.mean), tuple(self.std), resize, float(self.crop))


Losses = Loss | Weighted | Sequence[Loss | Weighted] | Mapping[str, Loss | Weighted]


@dataclass(frozen=True)
class Program:
    """A network and how to train it.

    `model` is any callable from value to value: an `nn.Sequential`, or a function that calls layers. It is
    called once, on the symbolic input. `classes` names the classes in the order of their labels; `name` is
    the file's where it is not given. The parameters move once in `accumulate` batches, by the mean gradient
    over all of them: schedules count these updates. With `average`, a number such as 0.999, the state also
    holds an exponential moving average of parameters and running statistics with that decay, which is what
    is evaluated and exported: it is steadier than the parameters themselves, and mostly better. `augment`
    lists what changes the examples of each training step, see `cnnc.augment`.

    A model with several outputs returns a dict of them, and `loss` has a loss for each name, perhaps with a
    weight (``0.3 * losses.SoftmaxCrossEntropy()``, see `losses.Weighted`); so have `metrics` and `classes`
    where they are given. Or it returns a tuple, and `loss` is a list: the names are then ``output1``, …
    Raises GraphFileError.
    """

    input: Tensor
    model: Model
    loss: Losses
    optimizer: Optimizer
    metrics: Sequence[Metric] | Mapping[str, Sequence[Metric]] = ()
    classes: Sequence[str] | Mapping[str, Sequence[str]] | None = None
    name: str = ""
    accumulate: int = 1
    average: float | None = None
    augment: Sequence[Augmentation] = ()
    heads: tuple[Head, ...] = field(init=False, repr=False, compare=False, default=())
    where: str = field(init=False, repr=False, compare=False, default="")

    def __post_init__(self) -> None:
        object.__setattr__(self, "where", user_line())
        expect("input", self.input, Tensor, 'cnnc.Tensor("image", ("N", 1, 28, 28))')
        object.__setattr__(self, "heads", heads_of(self.loss, self.metrics, self.classes))
        for name in ("metrics", "classes"):
            if isinstance(value := getattr(self, name), list):
                object.__setattr__(self, name, tuple(value))
        expect("optimizer", self.optimizer, Optimizer, "optim.Adam()")
        if not callable(self.model) or isinstance(self.model, type):
            raise field_error(
                "model", self.model, "a layer, nn.Sequential(…) or a function from value to value"
            )
        if not isinstance(self.augment, tuple | list):
            raise field_error("augment", self.augment, "a list, such as [augment.RandomCrop(4)]")
        for augmentation in self.augment:
            expect("each of augment", augmentation, Augmentation, "augment.RandomCrop(4)")
        object.__setattr__(self, "augment", tuple(self.augment))
        integer("Program", "accumulate", self.accumulate)
        if self.average is not None:
            real("Program", "average", self.average, below=1.0)
        if not isinstance(self.name, str):
            raise field_error("name", self.name, "a text")
        file = self.where.rpartition(":")[0]
        object.__setattr__(self, "name", self.name or PurePath(file).stem or "network")

    def trace(self, dtype: ir.DataType = ir.DataType.FLOAT) -> Network:
        """Call the model and return its forward graph, checked against losses, metrics and class names.

        Raises ShapeError or GraphFileError, with the user's file and line.
        """
        trace = Trace(self.name, dtype)
        try:
            with users_code("the model", self.where):
                returned = self.model(trace.input(self.input.name, self.input.shape))
                for value in self._outputs(returned):
                    if not isinstance(value, Value) or value.trace is not trace:
                        raise GraphFileError(
                            f"the model returned {value!r}, not a value of the network.",
                            hint="Return what its last layer returned.",
                        )
                    trace.network.graph.outputs.append(value.value)
                self._check(trace.network)
        except GraphFileError as error:
            error.where = error.where or self.where
            raise
        return trace.network

    def _outputs(self, returned: Any) -> list[Any]:
        """What the model returned, in the order of the heads."""
        names = [head.name for head in self.heads]
        if isinstance(returned, Mapping) and returned:
            if isinstance(self.loss, Mapping) and returned.keys() == self.loss.keys():
                return [returned[name] for name in self.loss]
            raise GraphFileError(
                f"the model returned outputs named {', '.join(map(repr, returned))}"
                + (
                    f", and there are losses for {', '.join(map(repr, self.loss))}."
                    if isinstance(self.loss, Mapping)
                    else ", and the loss is not a dict with the same names."
                ),
                hint="Give each output a loss of its name.",
            )
        values = list(returned) if isinstance(returned, tuple | list) else [returned]
        if len(values) != len(names):
            raise GraphFileError(
                f"the model returned {counted(len(values), 'value')}, and there "
                f"{'is' if len(names) == 1 else 'are'} {counted(len(names), 'loss', 'losses')}.",
                hint="Give each output a loss: loss=[…], or a dict where the model returns one.",
            )
        return values

    def _check(self, network: Network) -> None:
        """Raise GraphFileError where network, losses, metrics and class names don't go together."""
        heads = Heads(self.heads, types_of(network.outputs))
        for head, value, target in zip(heads.heads, network.outputs, heads.targets, strict=True):
            _check_head(head, value, target)
        heads.metrics()
        for augmentation in self.augment:
            for target in heads.inputs:
                augmentation.check(type_of(network.input), target)
        trained = [p for p in network.parameters.values() if p.trainable and p.kind != "statistic"]
        if not trained:
            raise GraphFileError("the network has nothing to train.", hint="Add a nn.Dense or nn.Conv2d.")
        self.optimizer.own(trained)
        used = set[str]().union(*map(_names_before, network.outputs))
        if idle := sorted(network.parameters.keys() - used):
            raise GraphFileError(
                f"the output does not depend on {', '.join(idle[:5])}.",
                hint="Use what the layer returns, or don't call it.",
            )


_PASSING = {"Dropout", "Identity", "Flatten", "Reshape", "Squeeze", "Unsqueeze", "Transpose"}
"""Operators that leave an activation before them one."""


def _check_head(head: Head, value: ir.Value, target: TargetSpec) -> None:
    output, loss = type_of(value), type(head.loss).__name__
    for metric in head.metrics:
        metric.check(output, target)
    last = value.producer()
    while last is not None and last.op_type in _PASSING:
        first = last.inputs[0]
        last = first.producer() if first is not None else None
    if last is not None and last.op_type.lower() == head.loss.activation:
        raise GraphFileError(
            f"the network ends in {last.op_type}, and {loss} applies it too.",
            where=last.metadata_props.get("cnnc.where", ""),
            hint="Take it away: training folds it into the loss, the exported model applies it.",
        )
    if head.classes and target.kind == "class" and len(head.classes) != output.dims[1]:
        raise ShapeError(
            f"Program: {len(head.classes)} class names for an output {output}.",
            hint="Make the units of the last layer the number of classes.",
        )


def _names_before(output: ir.Value) -> set[str]:
    """The names of all values that `output` is computed from."""
    names: set[str] = set()
    waiting: list[ir.Value | None] = [output]
    while waiting:
        value = waiting.pop()
        if value is not None and value.name not in names:
            names.add(str(value.name))
            producer = value.producer()
            waiting += producer.inputs if producer is not None else ()
    return names
