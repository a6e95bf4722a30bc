"""From an ONNX model and a few wishes to what `cnnc.compiler` compiles."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar, cast, get_args

from cnnc import optim
from cnnc.augment.named import parse
from cnnc.bundle import Preprocessing, Resize
from cnnc.compiler import Compiled, compile_network
from cnnc.errors import GraphFileError, ModelError, UnsupportedError, UsageError, did_you_mean
from cnnc.foreign.coverage import NOTHING, missing, path_parameters
from cnnc.foreign.fine_tuning import freeze_statistics, initialise_from, select, with_classes
from cnnc.foreign.importing import import_network
from cnnc.foreign.lora import RANK, Lora, adapt
from cnnc.foreign.objectives import Objective, heads_of, kept_activations, objectives, public
from cnnc.foreign.parameters import tensor_dims
from cnnc.foreign.reading import Foreign, read
from cnnc.ir import Network, TensorType, type_of
from cnnc.memory import MemoryLimit
from cnnc.step import Recipe, Revision

_T = TypeVar("_T")


@dataclass(frozen=True)
class Wishes:
    """How a foreign model is to be trained.

    `loss` and `optimizer` are names such as ``softmax_cross_entropy`` and ``adamw``; where no loss is given,
    it follows from the model's last operator and its output. For several outputs there is a loss for each,
    such as ``"main=softmax_cross_entropy"`` and ``"aux=softmax_cross_entropy:0.3"``, with its weight, and
    `same_target` names those that share a target, as ``"aux=main"``. `lr` is the base learning rate,
    `weight_decay` the optimizer's; `lr_for` and `decay_for`, such as ``"layer4.*=0.001"``, give other ones to
    parameters that a regular expression matches. `train` and `freeze` are such expressions too, over whole
    parameter names. `classes` gives the model a new last layer; `lora` adapts the weights that it matches
    (see `cnnc.foreign.lora`): then only the adapters move, a new last layer, and what `train` matches.
    `init_from` is another model whose weights are taken by name and shape; `freeze_batchnorm` keeps the
    running statistics. `scale`, `mean`, `std`, `resize` and `crop` say how a stored image becomes the input
    (see `cnnc.bundle.Preprocessing`). `output`, `example` and `dequantize` are those of
    `cnnc.foreign.reading.read`; `augment` are augmentations such as ``crop:4``, see `cnnc.augment.named`.
    """

    loss: str | Sequence[str] | None = None
    same_target: tuple[str, ...] = ()
    optimizer: str = "adam"
    lr: float | None = None
    weight_decay: float | None = None
    lr_for: tuple[str, ...] = ()
    decay_for: tuple[str, ...] = ()
    train: str | None = None
    freeze: str | None = None
    classes: int | None = None
    lora: str | None = None
    lora_rank: int | None = None
    lora_alpha: float | None = None
    init_from: str | None = None
    freeze_batchnorm: bool = False
    scale: float = 1.0 / 255.0
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    resize: str = "exact"
    crop: float = 1.0
    output: str | None = None
    example: tuple[int, ...] | None = None
    dequantize: bool = False
    augment: tuple[str, ...] = ()


def compile_model(
    path: str | os.PathLike[str],
    wishes: Wishes | None = None,
    *,
    seed: int = 0,
    memory: MemoryLimit | None = None,
    revise: Revision | None = None,
) -> tuple[Compiled, list[str]]:
    """Compile the training step of an ONNX model, and say what its user should know of it.

    `memory` is what the step must fit into, and `revise` what `compile_network` takes.
    Raises UsageError for a wish that can't be, ModelError for a model that can't be read, UnsupportedError
    with everything that is missing for one that can't be trained.
    """
    wishes = wishes or Wishes()
    optimizer = _optimizer(wishes)
    lora = _lora(wishes)
    wanted = objectives(wishes.loss, wishes.same_target)
    if wishes.output is not None and wanted[0].output is not None:
        raise UsageError("--model-output says the same as --loss OUTPUT=LOSS.", hint="Leave it out.")
    if wishes.classes is not None and wishes.classes < 1:
        raise UsageError(f"--classes takes the number of classes, not {wishes.classes}.")
    augmentations = [parse(text) for text in wishes.augment]
    named = [each.output for each in wanted if each.output is not None]
    foreign = read(path, output=named or wishes.output, example=wishes.example, dequantize=wishes.dequantize)
    notes: list[str] = []
    fresh = set[str]()
    if wishes.classes is not None and not foreign.unknown and not foreign.problems:
        source = foreign
        foreign, notes = _with_classes(foreign, wishes.classes, wanted)
        fresh = _fresh(source, foreign)
    imported = import_network(foreign)
    if kept := kept_activations(wanted, imported):
        imported = import_network(foreign, keep=kept)
    network = imported.network
    heads, said = heads_of(wanted, imported)
    notes += said
    if wishes.init_from is not None:
        notes += initialise_from(network, read(wishes.init_from, dequantize=wishes.dequantize))
    _freeze_unreachable(network, notes, str(path))
    notes += select(network, wishes.train, wishes.freeze)
    if lora is not None:
        notes += adapt(network, lora, fresh if wishes.train is None else _trained(network))
    if wishes.freeze_batchnorm:
        freeze_statistics(network)
    if lacking := missing(network):
        raise UnsupportedError(" ".join(lacking.values()), where=str(path), hint="`cnnc check` says more.")
    _check_groups(optimizer, network)
    check_state_names(network, optimizer, str(path))
    for text, augmentation in zip(wishes.augment, augmentations, strict=True):
        try:
            for target in heads.inputs:
                augmentation.check(type_of(network.input), target)
        except GraphFileError as error:
            raise UsageError(f"--augment {text}: {error.what}", hint=error.hint) from error
    recipe = Recipe(
        foreign.path.stem,
        heads.heads,
        optimizer,
        _preprocessing(wishes, type_of(network.input)),
        augment=augmentations,
    )
    compiled = compile_network(network, recipe, seed=seed, memory=memory, revise=revise)
    return compiled, [*imported.notes, *notes]


def _with_classes(foreign: Foreign, classes: int, wanted: Sequence[Objective]) -> tuple[Foreign, list[str]]:
    """A new last layer for the output, or for each of several that tell classes apart."""
    notes = []
    for place, each in enumerate(wanted):
        if len(wanted) == 1 or (each.loss is not None and each.loss.activation == "softmax"):
            foreign, said = with_classes(foreign, classes, place)
            notes += said
    return foreign, notes


def _fresh(before: Foreign, after: Foreign) -> set[str]:
    """The tensors that new classes gave other sizes or first values."""
    old, new = tensor_dims(before.graph), tensor_dims(after.graph)
    return {
        name
        for name, dims in new.items()
        if dims != old.get(name, dims) or before.drawn.get(name) != after.drawn.get(name)
    }


def _lora(wishes: Wishes) -> Lora | None:
    if wishes.lora is not None:
        return Lora(wishes.lora, RANK if wishes.lora_rank is None else wishes.lora_rank, wishes.lora_alpha)
    for option, value in (("--lora-rank", wishes.lora_rank), ("--lora-alpha", wishes.lora_alpha)):
        if value is not None:
            raise UsageError(f"{option} needs --lora.", hint="Say which weights to adapt: --lora 'layer4.*'.")
    return None


def _trained(network: Network) -> set[str]:
    return {name for name, p in network.parameters.items() if p.kind != "statistic" and p.trainable}


def check_state_names(network: Network, optimizer: optim.Optimizer, where: str) -> None:
    """Raise ModelError where a parameter is called as a state of the optimizer will be."""
    slots = {
        f"{name}/{slot.name}"
        for name, parameter in network.parameters.items()
        for slot in optimizer.slots(parameter.type.sizes)
    }
    if taken := sorted(slots & network.parameters.keys()):
        raise ModelError(
            f"the parameter '{taken[0]}' is called as a state of the optimizer is.",
            where=where,
            hint="Take another optimizer, or give it another name in the model.",
        )


OPTIMIZERS: dict[str, type[optim.Optimizer]] = {
    kind.__name__.lower(): kind for kind in public(optim, optim.Optimizer)
}


def _named(option: str, name: str, known: dict[str, type[_T]]) -> type[_T]:
    if name not in known:
        raise UsageError(f"{option} '{name}' is unknown.", hint=did_you_mean(name, known))
    return known[name]


def _optimizer(wishes: Wishes) -> optim.Optimizer:
    kind = _named("--optimizer", wishes.optimizer, OPTIMIZERS)
    if wishes.lr is not None and not 0 < wishes.lr < math.inf:
        raise UsageError(f"--lr takes a positive number, not {wishes.lr}.")
    if wishes.weight_decay is not None and not 0 <= wishes.weight_decay < math.inf:
        raise UsageError(f"--weight-decay takes a number of at least 0, not {wishes.weight_decay}.")
    given: dict[str, Any] = {"learning_rate": wishes.lr, "weight_decay": wishes.weight_decay}
    groups = [optim.Group(*_rated("--lr-for", text)) for text in wishes.lr_for]
    groups += [
        optim.Group(pattern, weight_decay=number)
        for pattern, number in (_rated("--decay-for", text) for text in wishes.decay_for)
    ]
    return kind(**{k: v for k, v in given.items() if v is not None}, groups=groups)


def _rated(option: str, text: str) -> tuple[str, float]:
    """``layer4.*=0.001`` as pattern and number."""
    pattern, _, number = text.rpartition("=")
    try:
        value = float(number)
    except ValueError:
        value = math.nan
    if not pattern or not 0 <= value < math.inf:
        raise UsageError(f"{option} takes REGEX=NUMBER, such as {option} 'layer4.*=0.001', not '{text}'.")
    return pattern, value


def _check_groups(optimizer: optim.Optimizer, network: Network) -> None:
    """Raise UsageError where --lr-for or --decay-for can't be followed."""
    try:
        optimizer.own([p for p in network.parameters.values() if p.kind != "statistic" and p.trainable])
    except GraphFileError as error:
        raise UsageError(f"--lr-for, --decay-for: {error.what}", hint=error.hint) from error


def _freeze_unreachable(network: Network, notes: list[str], where: str) -> None:
    """Parameters from which nothing smooth leads to the loss are constants."""
    reached = path_parameters(network)
    trained = [p for p in network.parameters.values() if p.kind != "statistic"]
    idle = [p.name for p in trained if p.name not in reached]
    if len(idle) == len(trained):
        raise ModelError(NOTHING, where=where)
    if idle:
        notes += select(network, None, "|".join(map(re.escape, idle)))


def _preprocessing(wishes: Wishes, input_: TensorType) -> Preprocessing:
    channels = input_.dims[1]
    for option, numbers in (("--mean", wishes.mean), ("--std", wishes.std)):
        if len(numbers) not in (0, channels) or not all(map(math.isfinite, numbers)):
            raise UsageError(f"{option} takes a number for each of the {channels} channels.")
    if not 0 < wishes.scale < math.inf or any(number <= 0 for number in wishes.std):
        raise UsageError("--scale and --std take positive numbers.")
    if wishes.resize not in get_args(Resize):
        raise UsageError(f"--resize {wishes.resize}: {did_you_mean(wishes.resize, get_args(Resize))}")
    if not 0 < wishes.crop <= 1:
        raise UsageError("--crop takes a share above 0 and up to 1.")
    resize = cast("Resize", wishes.resize)
    return Preprocessing(wishes.scale, tuple(wishes.mean), tuple(wishes.std), resize, wishes.crop)
