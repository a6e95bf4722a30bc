"""Forward and backward for a batch in chunks, one after the other."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from cnnc.autodiff import gradients
from cnnc.bundle import LOSS, metric_count, metric_sum
from cnnc.ir import Builder, Network, type_of
from cnnc.ir.examples import Apart
from cnnc.losses.loss import Term
from cnnc.memory import Saving, in_chunks
from cnnc.step.backward import backward
from cnnc.step.form import TrainingForm
from cnnc.step.forward import adapted, forward
from cnnc.step.inputs import Inputs
from cnnc.step.outcome import Outcome
from cnnc.step.training import Training

_RANDOM = "random numbers are drawn for a whole batch"


def chunked_batch(builder: Builder, training: Training, inputs: Inputs, saving: Saving) -> Outcome:
    """Loss, metrics and gradients as sums over chunks of the batch, divided last by the loss's count."""
    network, targets, state = training.network, inputs.targets, inputs.state
    rewrites = TrainingForm(_no_random, network.parameters).rewrites
    recomputed: tuple[str, ...] = ()

    def emit(inner: Builder, part: Sequence[ir.Value]) -> dict[str, ir.Value]:
        nonlocal recomputed
        outputs = forward(inner, network, part[0], adapted(inner, network, state), rewrites)
        terms: tuple[Term, ...] = ((dict(zip(targets, part[1:], strict=True)), None),)
        _, sums = training.heads.emit(inner, outputs, terms, part[0])
        total = sums[metric_sum("loss")]
        found, recomputed = backward(inner, training, total, state, save_memory=saving.recompute)
        return {**sums, **{f"gradient/{name}": gradient for name, gradient in found.items()}}

    totals = in_chunks(builder, saving.chunks, [inputs.image, *targets.values()], emit)
    sums = {name: total for name, total in totals.items() if not name.startswith("gradient/")}
    total, count = sums[metric_sum("loss")], sums[metric_count("loss")]
    with builder.scope("loss"):
        loss = training.recipe.heads[0].loss.mean(builder, total, count, name="loss")
    (share,) = gradients(builder, loss, [total])
    means = {}
    for parameter in training.trained:
        with builder.scope(f"chunks/{parameter.name}", parameter=parameter.name):
            means[parameter.name] = builder.op("Mul", totals[f"gradient/{parameter.name}"], share)
    return Outcome({LOSS: loss, **sums}, means, recomputed=recomputed)


def unsplittable(training: Training) -> str:
    """What keeps the batch from going in chunks, in a clause; empty where nothing does."""
    if training.random:
        return _RANDOM
    if training.heads.several:
        return "it has several losses, each with a mean of its own"
    network = training.network
    batch, *_ = type_of(network.input).dims
    if not isinstance(batch, str):
        return "its batches are of one size"
    apart = Apart(batch, [network.input])
    for node in network.graph:
        if node.op_type == "BatchNormalization" and not _is_frozen(network, node):
            return f"batch normalisation ('{node.name}') takes its statistics over a whole batch"
        if mixed := apart.meet(node):
            return mixed
    return ""


def _is_frozen(network: Network, node: ir.Node) -> bool:
    """Whether the running statistics of a batch normalisation do not move."""
    names = (str(value.name) for value in node.inputs[3:] if value is not None)
    return not any(network.parameters[n].trainable for n in names if n in network.parameters)


def _no_random() -> tuple[ir.Value, ir.Value]:
    raise AssertionError(_RANDOM)
