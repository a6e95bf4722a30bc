"""What the bundle's manifest says of a training."""

from __future__ import annotations

from collections.abc import Sequence

from cnnc import __version__
from cnnc.bundle import AdapterSpec, FunctionSpec, Manifest, TensorSpec
from cnnc.ir import type_of
from cnnc.opset import IR_VERSION, OPSET
from cnnc.step.training import Training


def manifest_of(training: Training, functions: Sequence[FunctionSpec]) -> Manifest:
    """The manifest; `functions` are the bodies of train.onnx."""
    network, recipe = training.network, training.recipe
    input_ = type_of(network.input)
    first, *further = training.heads.specs()
    scalars: dict[str, int | float] = {"lr_scale": 1.0}
    if training.random:
        scalars["seed"] = training.seed
    return Manifest(
        name=recipe.name,
        producer=f"cnnc {__version__}",
        opset=OPSET,
        ir_version=IR_VERSION,
        input=TensorSpec(str(network.input.name), input_.dtype.numpy().name, input_.dims),
        output=first.output,
        activation=first.activation,
        target=first.target,
        preprocessing=recipe.preprocessing,
        classes=first.classes,
        loss=first.loss,
        optimizer=recipe.optimizer.describe(),
        learning_rate=recipe.optimizer.schedule.base,
        metrics=training.heads.metrics(),
        scalars=scalars,
        seed=training.seed,
        state=training.state,
        functions=tuple(functions),
        accumulate=recipe.accumulate,
        average=recipe.average,
        head=first.name,
        further=tuple(further),
        adapters=tuple(AdapterSpec(**vars(adapter)) for adapter in network.adapters),
        augment=tuple(augmentation.describe() for augmentation in recipe.augment),
    )
