"""What the outputs of a foreign model are trained for: ``--loss`` and ``--same-target`` as heads."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from cnnc import losses, metrics
from cnnc.errors import GraphFileError, ModelError, UnsupportedError, UsageError, did_you_mean
from cnnc.foreign.importing import Imported
from cnnc.heads import Head, Heads, types_of
from cnnc.ir import TensorType


def snake(name: str) -> str:
    """``SoftmaxCrossEntropy`` as ``softmax_cross_entropy``."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower()


def public(module: ModuleType, base: Any) -> list[Any]:
    """The kinds of `base` that a module offers."""
    offered = [getattr(module, name) for name in module.__all__]
    return [
        each for each in offered if isinstance(each, type) and issubclass(each, base) and each is not base
    ]


LOSSES: dict[str, type[losses.Loss]] = {
    **{snake(kind.__name__): kind for kind in public(losses, losses.Loss)},
    "mse": losses.MeanSquaredError,
}


@dataclass(frozen=True)
class Objective:
    """What one output is trained for.

    `output` is its name where that was said, `loss` None where none was asked for, `target` the output whose
    target it shares.
    """

    output: str | None = None
    loss: losses.Loss | None = None
    weight: float = 1.0
    target: str | None = None


def objectives(loss: str | Sequence[str] | None, same_target: Sequence[str] = ()) -> tuple[Objective, ...]:
    """``mse``, or ``OUTPUT=LOSS[:WEIGHT]`` for each of several outputs. Raises UsageError.

    Each of `same_target` is ``OTHER=OUTPUT``: the first is compared with the target of the second.
    """
    texts = () if loss is None else (loss,) if isinstance(loss, str) else tuple(loss)
    found = [_objective(text, len(texts) > 1) for text in texts] or [Objective()]
    names = [each.output for each in found]
    if twice := [name for name in names if names.count(name) > 1]:
        raise UsageError(
            f"--loss is given twice for the output '{twice[0]}'.", hint="Give each output one loss."
        )
    shared = dict(_pair(text, names) for text in same_target)
    return tuple(
        Objective(each.output, each.loss, each.weight, shared.get(str(each.output))) for each in found
    )


def _objective(text: str, several: bool) -> Objective:
    output, equals, rest = text.rpartition("=")
    name, colon, number = rest.partition(":")
    if several and not equals:
        raise UsageError(f"--loss '{text}' does not say of which output.", hint=_FORM)
    if name not in LOSSES:
        raise UsageError(f"--loss '{name}' is unknown.", hint=did_you_mean(name, LOSSES))
    try:
        weight = float(number) if colon else 1.0
    except ValueError:
        weight = math.nan
    if not 0 < weight < math.inf:
        raise UsageError(
            f"--loss '{text}' has the weight '{number}', which is no number above 0.", hint=_FORM
        )
    if weight != 1.0 and not several:
        raise UsageError(
            f"--loss '{text}' has a weight, and there is no other loss.", hint="Set the rate with --lr."
        )
    return Objective(output or None, LOSSES[name](), weight)


_FORM = "Write --loss OUTPUT=LOSS[:WEIGHT], such as --loss main=softmax_cross_entropy --loss aux=mse:0.3."


def _pair(text: str, names: Sequence[str | None]) -> tuple[str, str]:
    known = [name for name in names if name is not None]
    for place, character in enumerate(text):
        if character == "=" and text[:place] in known and text[place + 1 :] in known:
            return text[:place], text[place + 1 :]
    raise UsageError(
        f"--same-target takes OTHER=OUTPUT, two outputs that have a --loss, not '{text}'.",
        hint=f"They are: {', '.join(known)}." if known else "Give each output a loss: --loss OUTPUT=LOSS.",
    )


def kept_activations(wanted: Sequence[Objective], imported: Imported) -> set[int]:
    """The outputs whose loss compares what their final activation gives, which thus stays in the network."""
    return {
        place
        for place, (each, activation) in enumerate(zip(wanted, imported.activations, strict=True))
        if each.loss is not None and activation not in (each.loss.activation, "identity")
    }


def heads_of(wanted: Sequence[Objective], imported: Imported) -> tuple[Heads, list[str]]:
    """The heads of a network, and notes. Raises UnsupportedError where a loss does not fit its output."""
    types, notes, heads = types_of(imported.network.outputs), [], []
    where, several = str(imported.foreign.path), len(wanted) > 1
    for each, type_, activation in zip(wanted, types, imported.activations, strict=True):
        loss = each.loss or _fitting_loss(activation, type_)
        if each.loss is None:
            notes.append(f"the loss is {snake(type(loss).__name__)}: say another with --loss.")
        if activation == "identity" and loss.activation != "identity":
            of = f" '{each.output}'" if several else ""
            notes.append(f"the exported model applies the {loss.activation} that its loss{of} includes.")
        try:
            kind = loss.target(type_).kind
        except GraphFileError as error:
            raise UnsupportedError(
                error.what, where=where, hint="Choose a loss that fits with --loss."
            ) from error
        measured = [metrics.Accuracy()] if kind in ("class", "binary") else []
        name = str(each.output) if several else ""
        heads.append(Head(loss, name, each.weight, each.target, measured))
    found = Heads(heads, types)
    try:
        _check_names(found, imported)
    except GraphFileError as error:
        raise UsageError(error.what, hint=error.hint) from error
    return found, notes


def _check_names(heads: Heads, imported: Imported) -> None:
    """Raise ModelError where the model calls something as the step will call a target or a prediction."""
    network = imported.network
    names = {spec.name for spec in heads.inputs} | {spec.output.name for spec in heads.specs()}
    taken = {str(value.name) for value in network.graph.inputs}
    taken |= {str(value.name) for node in network.graph for value in node.outputs}
    if heads.several and (both := sorted(names & taken)):
        raise ModelError(
            f"'{both[0]}' is called as an input or output of the training step is.",
            where=str(imported.foreign.path),
            hint="Give it another name in the model.",
        )


def _fitting_loss(activation: str, output: TensorType) -> losses.Loss:
    """By the final activation; without one, classes for a matrix, values for anything else."""
    if activation == "sigmoid":
        return losses.BinaryCrossEntropy()
    if activation == "softmax" and output.rank > 2:
        return losses.PixelCrossEntropy()
    if activation == "softmax" or (output.rank == 2 and output.dims[1] != 1):
        return losses.SoftmaxCrossEntropy()
    return losses.MeanSquaredError()
