"""The compiler's half of generate_artifacts: a forward model and a request to the bytes of four files."""

from __future__ import annotations

from dataclasses import dataclass, replace

import onnx
import onnx_ir as ir

from cnnc import losses, optim
from cnnc.bundle import GRADIENT, LOSS, NEXT, Preprocessing, TargetSpec
from cnnc.compiler import Compiled, compile_network
from cnnc.errors import GraphFileError, ModelError, UnsupportedError, UsageError, did_you_mean
from cnnc.foreign.coverage import missing
from cnnc.foreign.importing import import_network
from cnnc.foreign.reading import read
from cnnc.foreign.training import check_state_names
from cnnc.heads import Head
from cnnc.ir import Builder, Network, TensorType, type_of
from cnnc.ort_training.checkpoint_file import LABELS, Record, encode
from cnnc.ort_training.graphs import drop_unread, keep_outputs, mean_loss, rename
from cnnc.step import Recipe


@dataclass(frozen=True)
class Request:
    """What a call of generate_artifacts asks for; `loss` and `optimizer` are names of their enums."""

    requires_grad: tuple[str, ...]
    frozen_params: tuple[str, ...]
    loss: str
    optimizer: str | None
    additional_outputs: tuple[str, ...]
    loss_inputs: tuple[str, ...]


_LOSSES: dict[str, tuple[losses.Loss, str]] = {
    "MSELoss": (losses.MeanSquaredError(), "target"),
    "CrossEntropyLoss": (losses.SoftmaxCrossEntropy(), "labels"),
    "BCEWithLogitsLoss": (losses.BinaryCrossEntropy(), "target"),
    "L1Loss": (losses.MeanAbsoluteError(), "target"),
}


@dataclass(frozen=True)
class _AdamW(optim.Adam):
    """Adam as the Transformers library and, after it, onnxruntime-training compute it.

    p ← p - rate · √(1 - β₂ᵗ) / (1 - β₁ᵗ) · m / (√v + ε): ε is added to √v before its bias is corrected. Its
    weight decay is 0 unless told otherwise, which only onnxblock could.
    """

    epsilon: float = 1e-6

    def scalars(self, builder: Builder, step: ir.Value, rate: ir.Value) -> tuple[ir.Value, ...]:
        """The corrections go into the rate, and nothing is left to correct."""
        rate, first, second = super().scalars(builder, step, rate)
        rate = builder.op("Mul", rate, builder.op("Div", builder.op("Sqrt", second), first))
        one = builder.constant(1.0, rate.dtype)
        return rate, one, one


@dataclass(frozen=True)
class _Named(losses.Loss):
    """A loss whose target is called as scripts know it, and that leaves the model's output as it is."""

    loss: losses.Loss
    name: str
    activation = "identity"

    def target(self, output: TensorType) -> TargetSpec:
        """The loss's own, renamed."""
        return replace(self.loss.target(output), name=self.name)

    def elements(
        self, builder: Builder, output: ir.Value, target: ir.Value
    ) -> tuple[ir.Value, ir.Value | None]:
        """The loss's own."""
        return self.loss.elements(builder, output, target)


def generate(path: str, request: Request) -> dict[str, bytes]:
    """The files by name. Raises UsageError, UnsupportedError, ModelError."""
    if len(request.loss_inputs) > 1:
        raise UnsupportedError(
            f"loss_input_names names {len(request.loss_inputs)} values; a loss reads one output here.",
            hint="The other one is its target, an input of its own.",
        )
    foreign = read(path, output=next(iter(request.loss_inputs), None))
    network = import_network(foreign, keep_activation=True).network
    source = onnx.load(path, load_external_data=False).graph
    output = _output(source, request)
    loss = _Named(*_LOSSES[request.loss])
    _check_names(source, loss.name, output, path)
    _select(network, request, path)
    try:
        loss.target(type_of(network.output))
    except GraphFileError as error:
        raise UnsupportedError(error.what, where=path, hint="Choose a loss that fits the output.") from error
    if lacking := missing(network):
        raise UnsupportedError(" ".join(lacking.values()), where=path, hint="`cnnc check` says more.")
    # At the base rate 1 the scale of the rate, which the optimizer's graph takes, is the rate itself.
    optimizer = _AdamW(1.0) if request.optimizer == "AdamW" else optim.SGD(1.0)
    check_state_names(network, optimizer, path)
    recipe = Recipe(foreign.path.stem, [Head(loss)], optimizer, Preprocessing())
    compiled = compile_network(network, recipe)
    names = {str(network.output.name): output}
    classes = type_of(network.output).dims[1]
    notes = {LABELS: str(classes)} if request.loss == "CrossEntropyLoss" and isinstance(classes, int) else {}
    files = {
        "training_model.onnx": _training(compiled, names, request, notes),
        "eval_model.onnx": _evaluation(compiled, names, request, notes),
        "checkpoint": _checkpoint(compiled, source, request),
    }
    if request.optimizer is not None:
        files["optimizer_model.onnx"] = _optimizer(compiled)
    return files


def _output(source: onnx.GraphProto, request: Request) -> str:
    """The name of the output that the loss reads."""
    outputs = [value.name for value in source.output]
    if not request.loss_inputs and len(outputs) > 1:
        raise UsageError(
            f"the model has {len(outputs)} outputs: {', '.join(outputs[:5])}.",
            hint="Say which one the loss reads: loss_input_names=[…].",
        )
    output = request.loss_inputs[0] if request.loss_inputs else outputs[0]
    if other := [name for name in request.additional_outputs if name != output]:
        raise UnsupportedError(
            f"additional_output_names has '{other[0]}'; only '{output}', which the loss reads, can be given "
            "out beside the loss.",
            hint="For other outputs run a model that export_model_for_inferencing writes.",
        )
    return output


def _check_names(source: onnx.GraphProto, target: str, output: str, path: str) -> None:
    """Raise ModelError where the model has a name already that the training graph will need."""
    names = {name for node in source.node for name in node.output}
    names |= {value.name for value in (*source.input, *source.initializer)}
    if target in names or output in (LOSS, GRADIENT):
        raise ModelError(
            f"the model has a value named '{target if target in names else output}', as a value of the "
            "training graph is called.",
            where=path,
            hint="Give it another name in the model.",
        )


def _select(network: Network, request: Request, path: str) -> None:
    """Leave only what requires a gradient to be trained. Raises UsageError."""
    trainable = {name for name, p in network.parameters.items() if p.kind != "statistic"}
    if not request.requires_grad:
        raise UsageError(
            "requires_grad names nothing, so there is nothing to train.",
            hint=f"The model has {', '.join(sorted(trainable)[:5])}.",
        )
    for name in request.requires_grad:
        if name not in trainable:
            what = (
                "is a running statistic" if name in network.parameters else "is no weight that can be trained"
            )
            raise UsageError(
                f"requires_grad names '{name}', which {what} of this model.",
                where=path,
                hint=did_you_mean(name, trainable),
            )
    for name in trainable:
        chosen = name in request.requires_grad
        network.parameters[name] = replace(network.parameters[name], trainable=chosen)


def _training(compiled: Compiled, names: dict[str, str], request: Request, notes: dict[str, str]) -> bytes:
    """grad.onnx without its metrics."""
    model = onnx.load_from_string(compiled.graphs["grad.onnx"])
    rename(model.graph, names)
    following = [value.name for value in model.graph.output if value.name.startswith(NEXT)]
    keep_outputs(model.graph, [LOSS, *request.additional_outputs, GRADIENT, *following])
    return _serialised(model, notes)


def _evaluation(compiled: Compiled, names: dict[str, str], request: Request, notes: dict[str, str]) -> bytes:
    """eval.onnx with the mean loss for its sum and count."""
    model = onnx.load_from_string(compiled.graphs["eval.onnx"])
    rename(model.graph, names)
    mean_loss(model.graph)
    keep_outputs(model.graph, [LOSS, *request.additional_outputs])
    return _serialised(model, notes)


def _optimizer(compiled: Compiled) -> bytes:
    """apply.onnx without the parameters that it does not change."""
    model = onnx.load_from_string(compiled.graphs["apply.onnx"])
    frozen = {entry.name for entry in compiled.manifest.entries("parameter") if not entry.trainable}
    keep_outputs(model.graph, [v.name for v in model.graph.output if v.name.removeprefix(NEXT) not in frozen])
    drop_unread(model.graph)
    return _serialised(model, {})


def _serialised(model: onnx.ModelProto, notes: dict[str, str]) -> bytes:
    del model.metadata_props[:]  # they tell the inputs and outputs that the graph had
    onnx.helper.set_model_props(model, notes)
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString(deterministic=True)


def _checkpoint(compiled: Compiled, source: onnx.GraphProto, request: Request) -> bytes:
    """The state before the first step; parameters in the order in which the model holds them."""
    entries = {entry.name: entry for entry in compiled.manifest.entries("parameter", "buffer")}
    held = [tensor.name for tensor in source.initializer if tensor.name in entries]
    order = [*held, *(name for name in entries if name not in set(held))]
    named = {*request.requires_grad, *request.frozen_params}
    record = Record(
        tuple(name for name in order if name in named),
        tuple(name for name in order if name in request.requires_grad),
    )
    return encode({name: compiled.state[name] for name in order}, record)
