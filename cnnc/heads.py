"""The outputs of a network and what each is trained for: losses, their targets, their metrics.

One output is the common case, and its names are plain: ``loss``, ``label``, ``accuracy``. Of several each has
a name, which the names of what belongs to it carry: ``main_loss``, ``label/main``, ``main_accuracy``. The
loss of the step is then Σ weight · mean loss of each.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import onnx_ir as ir

from cnnc.bundle import HeadSpec, MetricSpec, TargetSpec, TensorSpec, metric_count, metric_sum
from cnnc.errors import GraphFileError, ShapeError, did_you_mean
from cnnc.ir import Builder, TensorType, dims_of, type_of
from cnnc.losses import Loss
from cnnc.losses.loss import Share, Term
from cnnc.metrics import Metric

LOSS_METRIC = "loss"
_PREDICTIONS = {"softmax": "probabilities", "sigmoid": "probabilities", "identity": "output"}


@dataclass(frozen=True)
class Head:
    """One output and how it is trained.

    `weight` is that of its loss in the sum. `target` names the head whose target it shares; None: it has one
    of its own. `classes` are the names of its classes.
    """

    loss: Loss
    name: str = ""
    weight: float = 1.0
    target: str | None = None
    metrics: Sequence[Metric] = ()
    classes: Sequence[str] = ()


@dataclass(frozen=True)
class Heads:
    """The heads of a network whose outputs are of the types `outputs`, in the same order."""

    heads: Sequence[Head]
    outputs: Sequence[TensorType]

    @property
    def several(self) -> bool:
        """Whether names must tell heads apart."""
        return len(self.heads) > 1

    @cached_property
    def targets(self) -> tuple[TargetSpec, ...]:
        """The target of each head: heads that share one have the same. Raises ShapeError, GraphFileError."""
        own = {
            head.name: head.loss.target(output)
            for head, output in zip(self.heads, self.outputs, strict=True)
            if head.target is None
        }
        if len(own) > 1:
            own = {
                name: replace(spec, name=f"{spec.name}/{name}", array=f"y_{name}")
                for name, spec in own.items()
            }
        return tuple(
            self._shared(head, output, own) if head.target is not None else own[head.name]
            for head, output in zip(self.heads, self.outputs, strict=True)
        )

    def _shared(self, head: Head, output: TensorType, own: Mapping[str, TargetSpec]) -> TargetSpec:
        if head.target not in own:
            raise GraphFileError(
                f"the output '{head.name}' shares the target of '{head.target}', which has none of its own.",
                hint=did_you_mean(str(head.target), own),
            )
        theirs = own[str(head.target)]
        ours = replace(head.loss.target(output), name=theirs.name, array=theirs.array)
        if ours != theirs:
            raise ShapeError(
                f"the output '{head.name}' can't share the target of '{head.target}': it takes "
                f"{_told(ours)}, and that is {_told(theirs)}.",
                hint="Give it a target of its own, or a loss and a size that fit.",
            )
        return theirs

    @cached_property
    def inputs(self) -> tuple[TargetSpec, ...]:
        """The targets that the graphs take, each once."""
        return tuple({spec.name: spec for spec in self.targets}.values())

    def specs(self) -> tuple[HeadSpec, ...]:
        """As the manifest has them."""
        return tuple(
            HeadSpec(
                head.name,
                TensorSpec(self._prediction(head), output.dtype.numpy().name, output.dims),
                head.loss.activation,
                target,
                tuple(head.classes),
                head.loss.describe(),
            )
            for head, output, target in zip(self.heads, self.outputs, self.targets, strict=True)
        )

    def metrics(self) -> tuple[MetricSpec, ...]:
        """As the manifest has them: the loss first. Raises GraphFileError where two have one name."""
        found = [MetricSpec(LOSS_METRIC, "lower")]
        if self.several:
            parts = {self._named(head, LOSS_METRIC): float(head.weight) for head in self.heads}
            found = [MetricSpec(LOSS_METRIC, "lower", "total", parts=parts)]
            found += [MetricSpec(name, "lower") for name in parts]
        found += [spec for each in self._metric_specs() for spec in each]
        names = [spec.name for spec in found]
        if twice := [name for name in names if names.count(name) > 1]:
            raise GraphFileError(
                f"two metrics are called '{twice[0]}'.", hint="Give the outputs other names."
            )
        return tuple(found)

    def _metric_specs(self) -> list[list[MetricSpec]]:
        return [
            [self._qualified(head, metric.spec(target)) for metric in head.metrics]
            for head, target in zip(self.heads, self.targets, strict=True)
        ]

    def emit(
        self, builder: Builder, outputs: Sequence[ir.Value], terms: Sequence[Term], image: ir.Value
    ) -> tuple[ir.Value, dict[str, ir.Value]]:
        """Emit the loss, and sum and count of the loss and of each metric, under the graphs' names.

        Of an example with several targets the loss is their losses' sum by their shares, and metrics see the
        target with the largest one. Where there are several heads the sum of the loss is its mean times the
        examples in `image`.
        """
        sums, means = dict[str, ir.Value](), list[ir.Value]()
        shares = [_shares(terms, spec.name) for spec in self.targets]
        for head, output, targets in zip(self.heads, outputs, shares, strict=True):
            name = self._named(head, LOSS_METRIC)
            with builder.scope(f"loss/{head.name}".rstrip("/")):
                total, count = head.loss.emit_mixture(builder, output, targets)
                mean = head.loss.mean(builder, total, count, name=f"loss/{head.name}".rstrip("/"))
                if head.weight != 1.0:
                    mean = builder.op("Mul", mean, float(head.weight))
            means.append(mean)
            sums[metric_sum(name)], sums[metric_count(name)] = total, count
        loss = means[0]
        if self.several:
            with builder.scope("loss"):
                loss = builder.op("Sum", *means, name="loss")
                count = builder.op("Squeeze", builder.op("Shape", image, start=0, end=1))
                total = builder.op("Mul", loss, builder.op("CastLike", count, loss))
            sums = {metric_sum(LOSS_METRIC): total, metric_count(LOSS_METRIC): count, **sums}
        with builder.scope("metrics/target"):
            feeds = [dominant(builder, targets) for targets in shares]
        for head, output, spec, target, metrics in zip(
            self.heads, outputs, self.targets, feeds, self._metric_specs(), strict=True
        ):
            for metric, named in zip(head.metrics, metrics, strict=True):
                if metric_sum(named.counted) in sums:
                    continue
                with builder.scope(f"metrics/{named.counted}"):
                    total, count = metric.emit(builder, output, target, spec)
                sums[metric_sum(named.counted)], sums[metric_count(named.counted)] = total, count
        return loss, sums

    def predictions(self, builder: Builder, outputs: Sequence[ir.Value]) -> dict[str, ir.Value]:
        """Emit what the deployed model gives, under its names."""
        found = {}
        for head, output in zip(self.heads, outputs, strict=True):
            with builder.scope(f"output/{head.name}".rstrip("/")):
                found[self._prediction(head)] = head.loss.activate(builder, output)
        return found

    def input_types(self) -> dict[str, TensorType]:
        """The graph inputs that hold targets."""
        return {
            spec.name: TensorType(ir.DataType.from_numpy(np.dtype(spec.dtype)), spec.shape)
            for spec in self.inputs
        }

    def _named(self, head: Head, name: str) -> str:
        return f"{head.name}_{name}" if self.several else name

    def _qualified(self, head: Head, spec: MetricSpec) -> MetricSpec:
        source = self._named(head, spec.source) if spec.source else ""
        return replace(spec, name=self._named(head, spec.name), source=source)

    def _prediction(self, head: Head) -> str:
        kind = _PREDICTIONS[head.loss.activation]
        return f"{kind}/{head.name}" if self.several else kind


def dominant(builder: Builder, targets: Sequence[Share]) -> ir.Value:
    """The target with the largest share in each example, the first of equal ones."""
    best, most = targets[0]
    for target, share in targets[1:]:
        assert most is not None
        assert share is not None
        larger, dims = builder.op("Greater", share, most), dims_of(best)
        by_target = builder.reshape(larger, (dims[0], *[1] * (len(dims) - 1)))
        best = builder.op("Where", by_target, target, best)
        most = builder.op("Max", share, most)
    return best


def _shares(terms: Sequence[Term], name: str) -> list[Share]:
    """The targets of that name with their shares; one that all terms have is all of it."""
    found = [(targets[name], share) for targets, share in terms]
    return [(found[0][0], None)] if all(target is found[0][0] for target, _ in found) else found


def types_of(outputs: Sequence[ir.Value]) -> tuple[TensorType, ...]:
    """The types of values."""
    return tuple(type_of(value) for value in outputs)


def _told(spec: TargetSpec) -> str:
    ignored = "" if spec.ignored is None else f" of which {spec.ignored} is ignored"
    return f"{spec.kind} targets {spec.dtype} [{', '.join(map(str, spec.shape))}]{ignored}"
