"""What a graph file says of its outputs (losses, metrics, class names), as heads."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from cnnc.checks import expect, field_error, identifier
from cnnc.errors import GraphFileError, did_you_mean
from cnnc.heads import Head
from cnnc.losses import Loss, Weighted
from cnnc.metrics import Metric
from cnnc.source import user_line

_LOSS = "losses.SoftmaxCrossEntropy()"


def heads_of(loss: Any, metrics: Any, classes: Any) -> tuple[Head, ...]:
    """The heads that these fields of a Program describe. Raises GraphFileError."""
    weighted = _by_name(loss)
    several = len(weighted) > 1
    all_metrics = _each("metrics", metrics, weighted, several, ())
    all_classes = _each("classes", classes, weighted, several, None)
    heads = []
    for name, each in weighted.items():
        own_metrics, own_classes = all_metrics[name], all_classes[name]
        _check_metrics(own_metrics)
        if own_classes is not None and (
            isinstance(own_classes, str)
            or not isinstance(own_classes, Sequence)
            or not all(isinstance(label, str) for label in own_classes)
        ):
            raise field_error("classes", own_classes, 'a list of names, such as ["cat", "dog"]')
        _check_names(own_classes or ())
        head = Head(
            each.loss,
            name if several else "",
            each.weight,
            each.target,
            tuple(own_metrics),
            tuple(own_classes or ()),
        )
        heads.append(head)
    if not several and (heads[0].weight != 1.0 or heads[0].target is not None):
        raise GraphFileError(
            "Program: the loss has a weight or another's target, and there is no other.",
            where=user_line(),
            hint="Give the loss itself; a weight is a matter of the learning rate.",
        )
    for head in heads:
        if head.target is not None and head.target not in weighted:
            raise GraphFileError(
                f"Program: '{head.name}' shares the target of '{head.target}', which is no output.",
                where=user_line(),
                hint=did_you_mean(head.target, weighted),
            )
    return tuple(heads)


def _by_name(loss: Any) -> dict[str, Weighted]:
    """The losses by the names of their outputs."""
    if isinstance(loss, Mapping) and loss:
        given = {identifier("Program", "the name of an output", name): each for name, each in loss.items()}
    elif isinstance(loss, tuple | list) and loss:
        given = {f"output{place}": each for place, each in enumerate(loss, 1)}
    else:
        given = {"output1": loss}
    for each in given.values():
        if not isinstance(each, Weighted):
            expect("loss", each, Loss, _LOSS)
    return {name: each if isinstance(each, Weighted) else Weighted(each) for name, each in given.items()}


def _each(field: str, value: Any, names: Mapping[str, Any], several: bool, absent: Any) -> dict[str, Any]:
    """What a field says of each output: of several it is told by name."""
    if isinstance(value, Mapping):
        if unknown := [name for name in value if name not in names]:
            raise GraphFileError(
                f"Program: {field} has '{unknown[0]}', for which there is no loss.",
                where=user_line(),
                hint=did_you_mean(str(unknown[0]), names),
            )
        return {name: value.get(name, absent) for name in names}
    if several and value is not None and (not isinstance(value, tuple | list) or value):
        raise field_error(field, value, f"a dict by output, for {', '.join(names)}")
    return dict.fromkeys(names, absent if several else value)


def _check_metrics(metrics: Any) -> None:
    if not isinstance(metrics, tuple | list):
        raise field_error("metrics", metrics, "a list, such as [metrics.Accuracy()]")
    for metric in metrics:
        expect("each of metrics", metric, Metric, "metrics.Accuracy()")
    names = [metric.name for metric in metrics]
    if len(set(names)) < len(names):
        raise GraphFileError(
            f"Program: the metrics {', '.join(names)} are not all different.", where=user_line()
        )


def _check_names(classes: Sequence[str]) -> None:
    if not all(label.strip() for label in classes):
        raise GraphFileError("Program: a class name is empty.", where=user_line())
    if twice := [label for label, times in Counter(classes).items() if times > 1]:
        raise GraphFileError(
            f"Program: two classes have the name '{twice[0]}'.",
            where=user_line(),
            hint="Give each class a name of its own, in the order of the labels.",
        )


def counted(number: int, word: str, words: str = "") -> str:
    """``1 loss``, ``2 losses``."""
    return f"{number} {word if number == 1 else words or word + 's'}"
