"""From a program to its bundle.

::

    Program ─► forward graph ─► autodiff ─► lowering ─► train, grad, apply, eval, infer ─► bundle

The step is the composition of three pieces, each a few lines below: *forward* (network, loss, metrics),
*backward* (`cnnc.autodiff`), *update* (the optimizer). train.onnx is all three, grad.onnx the first two,
apply.onnx the last.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from cnnc import __version__, initial
from cnnc.augment import Augmentation
from cnnc.augment.augmentation import Batch, Facts, emit_all
from cnnc.autodiff import gradients
from cnnc.bundle import (
    ADAPTED,
    GRADIENT,
    LOSS,
    NEXT,
    AdapterSpec,
    FunctionSpec,
    Manifest,
    MemorySpec,
    Preprocessing,
    Role,
    StateEntry,
    TensorSpec,
    metric_count,
    metric_sum,
)
from cnnc.errors import UnsupportedError
from cnnc.heads import Head, Heads, types_of
from cnnc.ir import Builder, Network, Parameter, TensorType, type_of
from cnnc.ir.transcribe import transcribe
from cnnc.losses.loss import Term
from cnnc.lowering import lower
from cnnc.memory import MemoryLimit, Saving, fit, in_chunks, recompute
from cnnc.opset import GRAD_DOMAIN, GRAD_VERSION, IR_VERSION, OPSET
from cnnc.optim import Optimizer
from cnnc.program import Program
from cnnc.training_form import INFERENCE_FORM, TrainingForm, dropout_ratio
from cnnc.update import ZERO, Update

Array = npt.NDArray[Any]

MOVED: tuple[Role, ...] = ("slot", "accumulator", "average", "counter")
"""What an update moves beside the parameters."""


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


@dataclass(frozen=True)
class Recipe:
    """How a network is to be trained, and what its data is: all that a network itself does not say."""

    name: str
    heads: Sequence[Head]
    optimizer: Optimizer
    preprocessing: Preprocessing
    accumulate: int = 1
    average: float | None = None
    augment: Sequence[Augmentation] = ()


Revision = Callable[[Network, Recipe], Recipe]
"""What makes another recipe once the network is known."""


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
    recipe = Recipe(
        program.name,
        program.heads,
        program.optimizer,
        program.input.preprocessing,
        program.accumulate,
        program.average,
        program.augment,
    )
    network = program.trace(dtype)
    return compile_network(network, recipe, seed=seed, choices=choices, memory=memory, revise=revise)


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

    def compiled(saving: Saving) -> Compiled:
        return _Compiler(network, recipe, seed, dict(choices or {}), saving).compile()

    if memory is None:
        return compiled(Saving())
    step, saving, estimate = fit(memory, compiled)
    spec = MemorySpec(memory.bytes, memory.batch, estimate.total, len(step.recomputed), saving.chunks)
    return replace(step, manifest=replace(step.manifest, memory=spec))


@dataclass
class _Compiler:
    network: Network
    recipe: Recipe
    seed: int
    choices: dict[str, str]
    saving: Saving = Saving()  # noqa: RUF009 -- it is frozen
    functions: list[FunctionSpec] = field(default_factory=list)
    recomputed: tuple[str, ...] = ()
    _count_dtype: ir.DataType = ir.DataType.INT64

    def compile(self) -> Compiled:
        state: dict[str, Array] = {}
        for entry in self.entries:
            state[entry.name] = self._initial(entry, state)
        graphs = {
            "train.onnx": self._train(),
            "grad.onnx": self._grad(),
            "apply.onnx": self._apply(),
            "eval.onnx": self._eval(),
            "infer.onnx": self._infer(state),
        }
        return Compiled(self._manifest(), graphs, state, self.recomputed, self._unsplittable)

    # The five graphs.

    def _train(self) -> bytes:
        builder = _new_graph("train")
        image, targets = self._batch(builder)
        scalars = self._scalars(builder, "lr_scale", *self._random)
        state = self._inputs(builder, "parameter", "buffer", *MOVED)
        results, partials, buffers = self._forward_backward(builder, image, targets, scalars, state)
        count = results[metric_count("loss")]
        following = {**buffers, **self._update.emit(builder, scalars, state, partials, count)}
        return self._finish(builder, {**results, **self._next(builder, state, following)}, record=True)

    def _grad(self) -> bytes:
        builder = _new_graph("grad")
        image, targets = self._batch(builder)
        scalars = self._scalars(builder, *self._random)
        counter: tuple[Role, ...] = ("counter",) if self._random else ()
        state = self._inputs(builder, "parameter", "buffer", *counter)
        results, partials, buffers = self._forward_backward(builder, image, targets, scalars, state)
        with builder.scope("flatten"):
            flat = [builder.op("Reshape", partials[p.name], [-1]) for p in self._trained]
            results[GRADIENT] = builder.op("Concat", *flat, axis=0)
        kept = {name: state[name] for name in buffers}
        return self._finish(builder, {**results, **self._next(builder, kept, buffers)})

    def _apply(self) -> bytes:
        builder = _new_graph("apply")
        sizes = [e.size for e in self.entries if e.offset is not None]
        flat = builder.input(GRADIENT, TensorType(self._dtype, (sum(sizes),)))
        scalars = self._scalars(builder, "lr_scale")
        count = None
        if self.recipe.accumulate > 1:
            count = builder.input(metric_count("loss"), TensorType(self._count_dtype, ()))
        state = self._inputs(builder, "parameter", *MOVED)
        with builder.scope("unflatten"):
            parts = builder.op("Split", flat, sizes, axis=0, outputs=len(sizes))
            parts = [parts] if len(sizes) == 1 else parts
            partials = {
                p.name: builder.reshape(part, p.type.dims)
                for p, part in zip(self._trained, parts, strict=True)
            }
        following = self._update.emit(builder, scalars, state, partials, count)
        return self._finish(builder, self._next(builder, state, following))

    def _eval(self) -> bytes:
        builder = _new_graph("eval")
        image, targets = self._batch(builder)
        state = self._inputs(builder, "parameter", "buffer")
        values = transcribe(
            self.network.graph, builder, self._bindings(builder, image, state), INFERENCE_FORM
        )
        outputs = [values[output] for output in self.network.outputs]
        _, sums = self._heads.emit(builder, outputs, ((targets, None),), image)
        return self._finish(builder, sums)

    def _infer(self, state: Mapping[str, Array]) -> bytes:
        builder = _new_graph("infer")
        image = builder.input(str(self.network.input.name), type_of(self.network.input))
        bindings = {self.network.input: image}
        for value in self.network.graph.inputs[1:]:
            name = str(value.name)
            weight = ir.Value(
                name=builder.unique(name),
                type=value.type,
                shape=value.shape,
                const_value=ir.tensor(state[name], name=name),
            )
            builder.graph.register_initializer(weight)
            bindings[value] = weight
        values = transcribe(self.network.graph, builder, bindings, INFERENCE_FORM)
        outputs = [values[output] for output in self.network.outputs]
        return self._finish(builder, self._heads.predictions(builder, outputs))

    # The three pieces of the step.

    def _forward_backward(
        self,
        builder: Builder,
        image: ir.Value,
        targets: Mapping[str, ir.Value],
        scalars: Mapping[str, ir.Value],
        state: Mapping[str, ir.Value],
    ) -> tuple[dict[str, ir.Value], dict[str, ir.Value], dict[str, ir.Value]]:
        """Loss and metrics, the gradient of each trained parameter, the next running statistics."""
        if self.saving.chunks > 1:
            return (*self._in_chunks(builder, image, targets, state), {})
        statistics = [p for p in self.network.parameters.values() if p.kind == "statistic"]
        frozen = {p.name for p in statistics if not p.trainable}
        form = TrainingForm(lambda: (scalars["seed"], state["step"]), frozen)
        terms: tuple[Term, ...] = ((targets, None),)
        if self.recipe.augment:
            specs = {spec.name: spec for spec in self._heads.inputs}
            facts = Facts(scalars["seed"], state["step"], self.recipe.preprocessing, specs)
            batch = emit_all(builder, self.recipe.augment, Batch(image, terms), facts)
            image, terms = batch.images, batch.terms
        values = transcribe(self.network.graph, builder, self._bindings(builder, image, state), form.rewrites)
        outputs = [values[output] for output in self.network.outputs]
        loss, sums = self._heads.emit(builder, outputs, terms, image)
        self._count_dtype = type_of(sums[metric_count("loss")]).dtype
        partials = self._partials(builder, loss, state)
        buffers = {str(old.name): new for old, new in form.next_statistics.items()}
        return {LOSS: loss, **sums}, partials, buffers

    def _in_chunks(
        self,
        builder: Builder,
        image: ir.Value,
        targets: Mapping[str, ir.Value],
        state: Mapping[str, ir.Value],
    ) -> tuple[dict[str, ir.Value], dict[str, ir.Value]]:
        """Loss, metrics and gradients as sums over chunks of the batch, divided last by the loss's count."""
        rewrites = TrainingForm(self._no_random, self.network.parameters).rewrites

        def emit(inner: Builder, part: Sequence[ir.Value]) -> dict[str, ir.Value]:
            values = transcribe(self.network.graph, inner, self._bindings(inner, part[0], state), rewrites)
            terms: tuple[Term, ...] = ((dict(zip(targets, part[1:], strict=True)), None),)
            outputs = [values[output] for output in self.network.outputs]
            _, sums = self._heads.emit(inner, outputs, terms, part[0])
            self._count_dtype = type_of(sums[metric_count("loss")]).dtype
            found = self._partials(inner, sums[metric_sum("loss")], state)
            return {**sums, **{f"gradient/{name}": gradient for name, gradient in found.items()}}

        totals = in_chunks(builder, self.saving.chunks, [image, *targets.values()], emit)
        sums = {name: total for name, total in totals.items() if not name.startswith("gradient/")}
        total, count = sums[metric_sum("loss")], sums[metric_count("loss")]
        with builder.scope("loss"):
            loss = self.recipe.heads[0].loss.mean(builder, total, count, name="loss")
        (share,) = gradients(builder, loss, [total])
        partials = {}
        for parameter in self._trained:
            with builder.scope(f"chunks/{parameter.name}", parameter=parameter.name):
                partials[parameter.name] = builder.op("Mul", totals[f"gradient/{parameter.name}"], share)
        return {LOSS: loss, **sums}, partials

    def _no_random(self) -> tuple[ir.Value, ir.Value]:
        raise AssertionError("random numbers are drawn for a whole batch")

    def _partials(
        self, builder: Builder, loss: ir.Value, state: Mapping[str, ir.Value]
    ) -> dict[str, ir.Value]:
        """The gradient of `loss` for each trained parameter."""
        wrt, forward = [state[p.name] for p in self._trained], list(builder.graph)
        found = gradients(builder, loss, wrt)
        if still := [str(v.name) for v, gradient in zip(wrt, found, strict=True) if gradient is None]:
            raise UnsupportedError(
                f"the loss has no gradient for {', '.join(still[:5])}: between them lie only operators whose "
                "output does not change smoothly.",
                hint="Freeze them.",
            )
        if self.saving.recompute:
            self.recomputed = tuple(recompute(builder, forward))
        return {str(v.name): g for v, g in zip(wrt, found, strict=True) if g is not None}

    # Inputs, outputs and what they are called.

    def _batch(self, builder: Builder) -> tuple[ir.Value, dict[str, ir.Value]]:
        """The inputs that hold the image and the targets."""
        image = builder.input(str(self.network.input.name), type_of(self.network.input))
        types = self._heads.input_types()
        return image, {name: builder.input(name, type_) for name, type_ in types.items()}

    def _scalars(self, builder: Builder, *names: str) -> dict[str, ir.Value]:
        types = {"lr_scale": self._dtype, "seed": ir.DataType.INT64}
        return {name: builder.input(name, TensorType(types[name], ())) for name in names}

    def _inputs(self, builder: Builder, *roles: Role) -> dict[str, ir.Value]:
        return {
            e.name: builder.input(e.name, TensorType(ir.DataType.from_numpy(np.dtype(e.dtype)), e.shape))
            for e in self.entries
            if e.role in roles
        }

    def _bindings(
        self, builder: Builder, image: ir.Value, state: Mapping[str, ir.Value]
    ) -> dict[ir.Value, ir.Value]:
        inputs, values = self.network.graph.inputs, dict(state)
        for adapter in self.network.adapters:
            weight = state[adapter.weight]
            with builder.scope(ADAPTED + adapter.weight):
                product = builder.op("MatMul", state[adapter.left], state[adapter.right])
                change = builder.reshape(product, type_of(weight).dims)
                if adapter.scale != 1.0:
                    change = builder.op("Mul", change, adapter.scale)
                name = ADAPTED + adapter.weight
                values[adapter.weight] = builder.op("Add", weight, change, name=name)
        return {inputs[0]: image, **{value: values[str(value.name)] for value in inputs[1:]}}

    def _next(
        self, builder: Builder, state: Mapping[str, ir.Value], following: Mapping[str, ir.Value]
    ) -> dict[str, ir.Value]:
        """An output ``next/…`` for each state input; what nothing changes comes back as it is."""
        return {NEXT + name: following.get(name, value) for name, value in state.items()}

    def _finish(self, builder: Builder, outputs: Mapping[str, ir.Value], record: bool = False) -> bytes:
        """Name the outputs, drop dead nodes, lower, check, and serialise."""
        graph = builder.graph
        for name, value in outputs.items():
            if value.name != name:
                if value.is_graph_input() or value.is_graph_output() or value in graph.outputs:
                    value = builder.op("Identity", value, name=name)
                else:
                    value.name = name
            graph.outputs.append(value)
        model = ir.Model(graph, ir_version=IR_VERSION, producer_name="cnnc", producer_version=__version__)
        RemoveUnusedNodesPass()(model)
        functions, specs = lower(graph, self.choices if record else None)
        if record:
            self.functions = specs
        for function in functions:
            model.functions[function.identifier()] = function
        if functions:
            graph.opset_imports[GRAD_DOMAIN] = GRAD_VERSION
        pairs = {name: name.removeprefix(NEXT) for name in outputs if name.startswith(NEXT)}
        if pairs:
            model.metadata_props["cnnc.state"] = json.dumps(pairs)
        proto = ir.serde.serialize_model(model)
        onnx.checker.check_model(proto, full_check=True)
        return proto.SerializeToString(deterministic=True)

    # Facts about the network and its recipe.

    @cached_property
    def entries(self) -> tuple[StateEntry, ...]:
        """The state: parameters, running statistics, optimizer slots, the step counter."""
        entries = []
        offset = 0
        for p in self.network.parameters.values():
            shape = tuple(int(d) for d in p.type.dims)
            role: Role = "buffer" if p.kind == "statistic" else "parameter"
            trained = p in self._trained
            dtype = p.type.dtype.numpy().name
            entries.append(
                StateEntry(
                    p.name,
                    role,
                    dtype,
                    shape,
                    p.initial,
                    trainable=trained,
                    offset=offset if trained else None,
                )
            )
            offset += entries[-1].size if trained else 0
        return (*entries, *self._update.entries(), StateEntry("step", "counter", "int64", (), ZERO))

    @cached_property
    def _update(self) -> Update:
        recipe = self.recipe
        return Update(self._trained, recipe.optimizer, self._dtype, recipe.accumulate, recipe.average)

    @cached_property
    def _trained(self) -> list[Parameter]:
        """The parameters with a gradient, in the order of the flat gradient."""
        return [p for p in self.network.parameters.values() if p.kind != "statistic" and p.trainable]

    @cached_property
    def _random(self) -> tuple[str, ...]:
        """The scalar ``seed``, where the training form draws random numbers."""
        nodes = self.network.graph
        drops = any(node.op_type == "Dropout" and dropout_ratio(node) > 0 for node in nodes)
        return ("seed",) if drops or self.recipe.augment else ()

    @property
    def _unsplittable(self) -> str:
        """What keeps the batch from going in chunks, in a clause."""
        if self._random:
            return "random numbers are drawn for a whole batch"
        if self._heads.several:
            return "it has several losses, each with a mean of its own"
        network = self.network
        batch = type_of(network.input).dims[0]
        of_images: set[ir.Value | None] = {network.input}
        for node in network.graph:
            if not any(value in of_images for value in node.inputs):
                continue
            if node.op_type == "BatchNormalization" and not self._is_frozen(node):
                return f"batch normalisation ('{node.name}') takes its statistics over a whole batch"
            floats = [v for v in node.outputs if v.dtype is not None and v.dtype.is_floating_point()]
            if any(type_of(value).dims[:1] != (batch,) for value in floats):
                return f"'{node.name}' mixes the examples of a batch"
            of_images.update(floats)
        return ""

    def _is_frozen(self, node: ir.Node) -> bool:
        """Whether the running statistics of a batch normalisation do not move."""
        names = (str(value.name) for value in node.inputs[3:] if value is not None)
        return not any(self.network.parameters[n].trainable for n in names if n in self.network.parameters)

    @cached_property
    def _heads(self) -> Heads:
        return Heads(self.recipe.heads, types_of(self.network.outputs))

    @cached_property
    def _dtype(self) -> ir.DataType:
        return type_of(self.network.outputs[0]).dtype

    def _initial(self, entry: StateEntry, state: Mapping[str, Array]) -> Array:
        if entry.initial["kind"] == "stored":
            return self.network.values[entry.name]
        if entry.initial["kind"] == "copy":
            return state[str(entry.of)]
        return initial.draw(entry.initial, entry.shape, entry.dtype, self.seed, entry.name)

    def _manifest(self) -> Manifest:
        recipe, input_ = self.recipe, type_of(self.network.input)
        first, *further = self._heads.specs()
        scalars: dict[str, int | float] = {"lr_scale": 1.0}
        if self._random:
            scalars["seed"] = self.seed
        return Manifest(
            name=recipe.name,
            producer=f"cnnc {__version__}",
            opset=OPSET,
            ir_version=IR_VERSION,
            input=TensorSpec(str(self.network.input.name), input_.dtype.numpy().name, input_.dims),
            output=first.output,
            activation=first.activation,
            target=first.target,
            preprocessing=recipe.preprocessing,
            classes=first.classes,
            loss=first.loss,
            optimizer=recipe.optimizer.describe(),
            learning_rate=recipe.optimizer.schedule.base,
            metrics=self._heads.metrics(),
            scalars=scalars,
            seed=self.seed,
            state=self.entries,
            functions=tuple(self.functions),
            accumulate=recipe.accumulate,
            average=recipe.average,
            head=first.name,
            further=tuple(further),
            adapters=tuple(AdapterSpec(**vars(adapter)) for adapter in self.network.adapters),
            augment=tuple(augmentation.describe() for augmentation in recipe.augment),
        )


def _new_graph(name: str) -> Builder:
    return Builder(ir.Graph([], [], nodes=[], opset_imports={"": OPSET}, name=name))
