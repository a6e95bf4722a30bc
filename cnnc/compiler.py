"""From a program to its bundle.

::

    Program ─► forward graph ─► autodiff ─► lowering ─► train, grad, apply, eval, infer ─► bundle

The step is the composition of three pieces (see `cnnc.step`): *forward* (network, loss, metrics), *backward*
(`cnnc.autodiff`), *update* (the optimizer). train.onnx is all three, grad.onnx the first two, apply.onnx the
last. eval.onnx is forward alone, and infer.onnx the network without the loss.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import onnx_ir as ir

from cnnc.bundle import GRADIENT, Array, FunctionSpec, Manifest, MemorySpec, metric_count
from cnnc.ir import Network, TensorType, type_of
from cnnc.memory import MemoryLimit, Saving, fit
from cnnc.program import Program
from cnnc.step import (
    INFERENCE_FORM,
    Inputs,
    Outcome,
    Recipe,
    Revision,
    Training,
    adapted,
    finish,
    following,
    forward,
    forward_backward,
    image_input,
    manifest_of,
    new_graph,
    scalar_inputs,
    state_inputs,
    unsplittable,
    weight_constants,
)


@dataclass(frozen=True)
class Compiled:
    """What the compiler makes: everything that `cnnc.bundle.write_bundle` writes.

    `recomputed` names the activations that the step computes again, and `unsplittable` says in a clause why
    the batch can't go in chunks; it is empty where it can.
    """

    manifest: Manifest
    graphs: dict[str, bytes]
    state: dict[str, Array]
    recomputed: tuple[str, ...] = ()
    unsplittable: str = ""


def compile_program(
    program: Program,
    *,
    seed: int = 0,
    choices: Mapping[str, str] | None = None,
    dtype: ir.DataType = ir.DataType.FLOAT,
    memory: MemoryLimit | None = None,
    revise: Revision | None = None,
) -> Compiled:
    """Trace a program and compile it: see `compile_network`.

    `dtype` DOUBLE makes graphs that an oracle can check to many digits. Raises ShapeError for a network that
    can't be, UnsupportedError for one that can't be trained.
    """
    network, recipe = program.trace(dtype), recipe_of(program)
    return compile_network(network, recipe, seed=seed, choices=choices, memory=memory, revise=revise)


def recipe_of(program: Program) -> Recipe:
    """What a program says beside its network."""
    return Recipe(
        program.name,
        program.heads,
        program.optimizer,
        program.input.preprocessing,
        program.accumulate,
        program.average,
        program.augment,
    )


def compile_network(
    network: Network,
    recipe: Recipe,
    *,
    seed: int = 0,
    choices: Mapping[str, str] | None = None,
    memory: MemoryLimit | None = None,
    revise: Revision | None = None,
) -> Compiled:
    """Compile a forward network to the graphs, the manifest and the initial state of a bundle.

    `seed` draws the initial parameters; `choices` maps gradient nodes to the bodies they shall have (see
    `cnnc.lowering.lower`); `memory` is what the step must fit into, for which it may compute activations
    again or go through the batch in chunks; `revise` has the last word on the recipe. Raises
    UnsupportedError for a network that can't be trained, or not within `memory`.
    """
    if revise is not None:
        recipe = revise(network, recipe)
    training = Training(network, recipe, seed)
    if memory is None:
        return compile_training(training, Saving(), choices)
    step, saving, estimate = fit(memory, lambda saving: compile_training(training, saving, choices))
    spec = MemorySpec(memory.bytes, memory.batch, estimate.total, len(step.recomputed), saving.chunks)
    return replace(step, manifest=replace(step.manifest, memory=spec))


def compile_training(
    training: Training, saving: Saving, choices: Mapping[str, str] | None = None
) -> Compiled:
    """Compile to the five graphs, whose step saves memory as `saving` says: see `compile_network`."""
    state = training.initial_state()
    train, functions, step = _train(training, saving, choices or {})
    graphs = {
        "train.onnx": train,
        "grad.onnx": _grad(training, saving),
        "apply.onnx": _apply(training, type_of(step.count).dtype),
        "eval.onnx": _eval(training),
        "infer.onnx": _infer(training, state),
    }
    manifest = manifest_of(training, functions)
    return Compiled(manifest, graphs, state, step.recomputed, unsplittable(training))


# The five graphs.


def _train(
    training: Training, saving: Saving, choices: Mapping[str, str]
) -> tuple[bytes, list[FunctionSpec], Outcome]:
    builder = new_graph("train")
    given = Inputs.of(builder, training, scalars=["lr_scale", *training.random], state=training.state)
    step = forward_backward(builder, training, given, saving)
    moved = step.statistics | training.update.emit(
        builder, given.scalars, given.state, step.gradients, step.count
    )
    moved |= training.average.emit(builder, given.state, moved)
    outputs = {**step.results, **following(given.state, moved)}
    return (*finish(builder, outputs, choices), step)


def _grad(training: Training, saving: Saving) -> bytes:
    builder = new_graph("grad")
    given = Inputs.of(builder, training, scalars=training.random, state=training.batch_state)
    step = forward_backward(builder, training, given, saving)
    with builder.scope("flatten"):
        flat = [builder.op("Reshape", step.gradients[p.name], [-1]) for p in training.trained]
        gradient = builder.op("Concat", *flat, axis=0)
    moved = step.statistics | training.average.emit(builder, given.state, step.statistics)
    kept = {name: given.state[name] for name in moved}
    outputs = {**step.results, GRADIENT: gradient, **following(kept, moved)}
    return finish(builder, outputs)[0]


def _apply(training: Training, count_dtype: ir.DataType) -> bytes:
    builder = new_graph("apply")
    sizes = [e.size for e in training.state if e.offset is not None]
    flat = builder.input(GRADIENT, TensorType(training.dtype, (sum(sizes),)))
    scalars = scalar_inputs(builder, training, "lr_scale")
    count = None
    if training.recipe.accumulate > 1:
        count = builder.input(metric_count("loss"), TensorType(count_dtype, ()))
    state = state_inputs(builder, training.update_state)
    with builder.scope("unflatten"):
        parts = zip(training.trained, builder.split(flat, sizes), strict=True)
        gradients = {p.name: builder.reshape(part, p.type.dims) for p, part in parts}
    moved = training.update.emit(builder, scalars, state, gradients, count)
    moved |= training.average.emit(builder, state, moved)
    return finish(builder, following(state, moved))[0]


def _eval(training: Training) -> bytes:
    builder, network = new_graph("eval"), training.network
    given = Inputs.of(builder, training, state=training.network_state)
    weights = adapted(builder, network, given.state)
    outputs = forward(builder, network, given.image, weights, INFERENCE_FORM)
    _, sums = training.heads.emit(builder, outputs, ((given.targets, None),), given.image)
    return finish(builder, sums)[0]


def _infer(training: Training, state: Mapping[str, Array]) -> bytes:
    builder = new_graph("infer")
    image = image_input(builder, training)
    weights = weight_constants(builder, training, state)
    outputs = forward(builder, training.network, image, weights, INFERENCE_FORM)
    return finish(builder, training.heads.predictions(builder, outputs))[0]
