"""The program: what it accepts, what it traces to, and what it says when its parts don't go together."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, cast

import onnx
import onnx_ir as ir
import pytest

from cnnc import Program, Tensor, losses, metrics, nn, optim
from cnnc.bundle import Preprocessing
from cnnc.errors import GraphFileError, ShapeError
from cnnc.ir import TensorType, dims_of, type_of
from cnnc.opset import IR_VERSION

IMAGE = Tensor("image", ("N", 1, 8, 8))
LAYERS = nn.Sequential(nn.Conv2d(4, 3, activation="relu"), nn.Flatten(), nn.Dense(3))


def program(**fields: Any) -> Program:
    return Program(
        **{
            "input": IMAGE,
            "model": LAYERS,
            "loss": losses.SoftmaxCrossEntropy(),
            "optimizer": optim.Adam(),
            "metrics": [metrics.Accuracy()],
            **fields,
        }
    )


def test_trace() -> None:
    """A valid model, and the same every time."""
    first, second = program().trace(), program().trace()
    proto, again = (
        ir.serde.serialize_model(ir.Model(n.graph, ir_version=IR_VERSION)) for n in (first, second)
    )
    onnx.checker.check_model(proto, full_check=True)
    assert proto.SerializeToString(deterministic=True) == again.SerializeToString(deterministic=True)
    assert type_of(first.input) == TensorType(ir.DataType.FLOAT, ("N", 1, 8, 8))
    assert dims_of(first.output) == ("N", 3)
    assert first.graph.name == "test_program"
    assert list(first.parameters) == ["conv1.weight", "conv1.bias", "dense1.weight", "dense1.bias"]


def test_trace_in_float64() -> None:
    network = program().trace(ir.DataType.DOUBLE)
    assert type_of(network.output).dtype == ir.DataType.DOUBLE
    assert all(p.type.dtype == ir.DataType.DOUBLE for p in network.parameters.values())


def test_a_model_is_any_function() -> None:
    def model(x: nn.Value) -> nn.Value:
        y = nn.Conv2d(4, 3, padding="same")(x)
        return nn.Dense(3)(nn.GlobalAvgPool2d()(y + nn.Conv2d(4, 1)(x)))

    assert dims_of(program(model=model).trace().output) == ("N", 3)


def test_fields_are_kept() -> None:
    made = program(classes=["a", "b", "c"], name="first")
    assert (made.classes, made.name, made.metrics) == (("a", "b", "c"), "first", (metrics.Accuracy(),))
    image = Tensor("x", ("N", 3, 4, 4), scale=1.0, mean=[0.5, 0.4, 0.3], std=(1, 2, 3))
    assert image.preprocessing == Preprocessing(1.0, (0.5, 0.4, 0.3), (1.0, 2.0, 3.0))


def _unused(x: nn.Value) -> nn.Value:
    nn.Dense(2, name="forgotten")(x)
    return nn.Dense(3)(nn.Flatten()(x))


def _fails(x: nn.Value) -> nn.Value:
    return nn.Dense(int("many"))(x)


flat = Tensor("x", ("N", 4))
MISTAKES: list[tuple[Callable[[], Any], type[GraphFileError], str]] = [
    (
        lambda: program(input=("N", 1, 8, 8)),
        GraphFileError,
        'Program: input must be a Tensor, such as cnnc.Tensor("image", ("N", 1, 28, 28)), '
        "not ('N', 1, 8, 8).",
    ),
    (
        lambda: program(loss=losses.SoftmaxCrossEntropy),
        GraphFileError,
        "Program: loss must be a Loss, such as losses.SoftmaxCrossEntropy(), "
        "not the class SoftmaxCrossEntropy itself. Write SoftmaxCrossEntropy(…).",
    ),
    (
        lambda: program(optimizer="adam"),
        GraphFileError,
        "Program: optimizer must be an Optimizer, such as optim.Adam(), not 'adam'.",
    ),
    (
        lambda: program(model=nn.Flatten),
        GraphFileError,
        "Program: model must be a layer, nn.Sequential(…) or a function from value to value, "
        "not the class Flatten itself. Write Flatten(…).",
    ),
    (
        lambda: program(metrics=metrics.Accuracy()),
        GraphFileError,
        "Program: metrics must be a list, such as [metrics.Accuracy()], not Accuracy().",
    ),
    (
        lambda: program(metrics=["accuracy"]),
        GraphFileError,
        "Program: each of metrics must be a Metric, such as metrics.Accuracy(), not 'accuracy'.",
    ),
    (
        lambda: program(metrics=[metrics.Accuracy(), metrics.Accuracy()]),
        GraphFileError,
        "Program: the metrics accuracy, accuracy are not all different.",
    ),
    (
        lambda: program(classes="abc"),
        GraphFileError,
        'Program: classes must be a list of names, such as ["cat", "dog"], not \'abc\'.',
    ),
    (lambda: program(name=3), GraphFileError, "Program: name must be a text, not 3."),
    (
        lambda: program(classes=["a", "b"]).trace(),
        ShapeError,
        "Program: 2 class names for an output float[N, 3]. "
        "Make the units of the last layer the number of classes.",
    ),
    (
        lambda: program(model=nn.Flatten()).trace(),
        GraphFileError,
        "the network has nothing to train. Add a nn.Dense or nn.Conv2d.",
    ),
    (
        lambda: program(model=lambda x: None).trace(),
        GraphFileError,
        "the model returned None, not a value of the network. Return what its last layer returned.",
    ),
    (
        lambda: program(model=nn.Sequential(LAYERS, nn.Softmax())).trace(),
        GraphFileError,
        "the network ends in Softmax, and SoftmaxCrossEntropy applies it too. "
        "Take it away: training folds it into the loss, the exported model applies it.",
    ),
    (
        lambda: program(
            input=flat, model=nn.Dense(1, activation="sigmoid"), loss=losses.BinaryCrossEntropy()
        ).trace(),
        GraphFileError,
        "the network ends in Sigmoid, and BinaryCrossEntropy applies it too. "
        "Take it away: training folds it into the loss, the exported model applies it.",
    ),
    (
        lambda: program(input=flat, model=_unused).trace(),
        GraphFileError,
        "the output does not depend on forgotten.bias, forgotten.weight. "
        "Use what the layer returns, or don't call it.",
    ),
    (
        lambda: program(input=flat, model=_fails).trace(),
        GraphFileError,
        "the model raised ValueError: invalid literal for int() with base 10: 'many'.",
    ),
    (
        lambda: program(model=nn.Conv2d(4, 3)).trace(),
        ShapeError,
        "SoftmaxCrossEntropy takes logits [N, classes] of two or more classes; the network's output is "
        "float[N, 4, 6, 6]. End it with nn.Flatten() and nn.Dense(classes).",
    ),
    (
        lambda: program(loss=losses.MeanSquaredError()).trace(),
        GraphFileError,
        "Accuracy counts right answers, and this loss compares values. "
        "Leave the metric out: the mean loss is always reported.",
    ),
    (
        lambda: Tensor("image", (1, 28, 28)),
        ShapeError,
        "Tensor 'image': its shape (1, 28, 28) does not begin with the batch. "
        'Write ("N", channels, height, width), such as ("N", 1, 28, 28).',
    ),
    (
        lambda: Tensor("image", ("N", 1, 0, 28)),
        ShapeError,
        "Tensor 'image': each size after N must be at least 1, not 0.",
    ),
    (
        lambda: Tensor("image", ("N", 1, "H", 28)),
        ShapeError,
        "Tensor 'image': each size after N must be an integer, not 'H'.",
    ),
    (
        lambda: Tensor("label", ("N", 1, 8, 8)),
        GraphFileError,
        "Tensor: the name 'label' is the name of an input or output that every graph has. "
        "Choose another name.",
    ),
    (
        lambda: Tensor("image", ("N", 3, 8, 8), mean=(0.5,)),
        ShapeError,
        "Tensor 'image': mean is (0.5,), for 3 channels. Give a number for each channel, or none.",
    ),
    (
        lambda: Tensor("image", ("N", 1, 8, 8), std=(0,)),
        GraphFileError,
        "Tensor 'image': std must be a number above 0, not 0.",
    ),
    (
        lambda: Tensor("image", ("N", 1, 8, 8), scale=cast(Any, "1/255")),
        GraphFileError,
        "Tensor 'image': scale must be a number above 0, not '1/255'.",
    ),
]


@pytest.mark.parametrize(("make", "kind", "text"), MISTAKES, ids=[text[:60] for *_, text in MISTAKES])
def test_mistakes(make: Callable[[], Any], kind: type[GraphFileError], text: str) -> None:
    with pytest.raises(kind) as caught:
        make()
    assert re.fullmatch(r"test_program\.py:\d+: " + re.escape(text), str(caught.value))


def test_an_exception_is_told_with_its_own_line() -> None:
    with pytest.raises(GraphFileError) as caught:
        program(input=flat, model=_fails).trace()
    assert caught.value.where == f"test_program.py:{_fails.__code__.co_firstlineno + 1}"
