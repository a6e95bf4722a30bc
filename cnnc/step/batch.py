"""Forward and backward for a batch: at once, or in chunks where memory is short."""

from __future__ import annotations

from cnnc.augment.augmentation import Batch, Facts, emit_all
from cnnc.bundle import LOSS
from cnnc.ir import Builder
from cnnc.losses.loss import Term
from cnnc.memory import Saving
from cnnc.step.backward import backward
from cnnc.step.chunked import chunked_batch
from cnnc.step.form import TrainingForm
from cnnc.step.forward import adapted, forward
from cnnc.step.inputs import Inputs
from cnnc.step.outcome import Outcome
from cnnc.step.training import Training


def forward_backward(builder: Builder, training: Training, inputs: Inputs, saving: Saving) -> Outcome:
    """Emit the loss, the metrics, the gradients and the next running statistics of a batch."""
    if saving.chunks > 1:
        return chunked_batch(builder, training, inputs, saving)
    return whole_batch(builder, training, inputs, saving)


def whole_batch(builder: Builder, training: Training, inputs: Inputs, saving: Saving) -> Outcome:
    """The batch at once: augmented, through the network, and back."""
    network, recipe, scalars, state = training.network, training.recipe, inputs.scalars, inputs.state
    statistics = [p for p in network.parameters.values() if p.kind == "statistic"]
    frozen = {p.name for p in statistics if not p.trainable}
    form = TrainingForm(lambda: (scalars["seed"], state["step"]), frozen)
    image = inputs.image
    terms: tuple[Term, ...] = ((inputs.targets, None),)
    if recipe.augment:
        specs = {spec.name: spec for spec in training.heads.inputs}
        facts = Facts(scalars["seed"], state["step"], recipe.preprocessing, specs)
        batch = emit_all(builder, recipe.augment, Batch(image, terms), facts)
        image, terms = batch.images, batch.terms
    outputs = forward(builder, network, image, adapted(builder, network, state), form.rewrites)
    loss, sums = training.heads.emit(builder, outputs, terms, image)
    found, recomputed = backward(builder, training, loss, state, save_memory=saving.recompute)
    following = {str(old.name): new for old, new in form.next_statistics.items()}
    return Outcome({LOSS: loss, **sums}, found, following, recomputed)
