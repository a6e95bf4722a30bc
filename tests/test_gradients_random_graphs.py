"""Whole random networks, read as foreign models: loss and all gradients against PyTorch, in float64.

100 examples, the same each time; ``CNNC_HYPOTHESIS=nightly`` draws 2,000, other ones each time. None is
shrunk, which would take longer than to read what a failure prints: the whole network.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import Phase, given, seed, settings
from random_networks import RandomNetwork, random_networks
from random_rows import NIGHTLY, SETTINGS
from reference import evaluator
from traced import lowered

from cnnc.autodiff import gradients
from cnnc.foreign.importing import Imported, import_network
from cnnc.foreign.reading import read
from cnnc.ir import Builder, type_of
from cnnc.ir.transcribe import transcribe
from cnnc.opset import OPSET
from cnnc.step.form import TrainingForm

torch = pytest.importorskip("torch", reason="the oracle is PyTorch: pip install 'cnnc[oracle]'")
from torch_functions import FUNCTIONS  # noqa: E402

pytestmark = pytest.mark.oracle

Array = np.ndarray[Any, Any]
BATCHES, EXAMPLES = (80, 25) if NIGHTLY else (4, 25)
FIRST = int.from_bytes(os.urandom(4), "big") if NIGHTLY else 0
TOLERANCE = 1e-5
"""Of a gradient, relative to its largest element; the ReferenceEvaluator has some constants in float32."""
NOISE = 1e-9
"""What gradients are compared with where all of them are zero, as behind a mean that was subtracted."""


@pytest.mark.parametrize("number", range(BATCHES))
def test_gradients_of_random_networks_are_pytorchs(number: int, in_process: None) -> None:
    @seed(FIRST + number)
    @settings(SETTINGS, max_examples=EXAMPLES, derandomize=False, phases=[Phase.generate], print_blob=True)
    @given(random_networks())
    def holds(network: RandomNetwork) -> None:
        check(network)

    holds()


@pytest.mark.parametrize("align_corners", [0, 1])
@pytest.mark.parametrize("padding_mode", ["zeros", "border", "reflection"])
@pytest.mark.parametrize("mode", ["linear", "nearest"])
def test_gradients_of_volumes_under_a_grid_are_pytorchs(
    mode: str, padding_mode: str, align_corners: int, in_process: None
) -> None:
    """GridSample of volumes, which opset 18 does not have, with a grid that is computed."""
    rng = np.random.default_rng(0)
    weights = {"move": rng.standard_normal((3, 2, 1, 1, 1)), "w": rng.standard_normal((4, 2, 2, 1, 2))}
    space = onnx.numpy_helper.from_array(np.array([2, 3, 4]), "space")
    nodes = [
        onnx.helper.make_node("Constant", [], ["space"], value=space),
        onnx.helper.make_node("Conv", ["image", "move"], ["moved"]),
        onnx.helper.make_node("Transpose", ["moved"], ["grid"], perm=[0, 2, 3, 4, 1]),
        onnx.helper.make_node("Conv", ["image", "w"], ["x"]),
        onnx.helper.make_node(
            *("GridSample", ["x", "grid"], ["seen"]),
            mode=mode, padding_mode=padding_mode, align_corners=align_corners,
        ),
        onnx.helper.make_node("Exp", ["seen"], ["up"]),
        onnx.helper.make_node("ReduceMean", ["up", "space"], ["y"], keepdims=0),
    ]  # fmt: skip
    graph = onnx.helper.make_graph(
        nodes,
        "volume",
        [onnx.helper.make_tensor_value_info("image", onnx.TensorProto.DOUBLE, ["N", 2, 3, 4, 3])],
        [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.DOUBLE, ["N", 4])],
        [onnx.numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    imports = [onnx.helper.make_opsetid("", 20)]
    check(RandomNetwork(onnx.helper.make_model(graph, opset_imports=imports, ir_version=9), "N"))


def check(network: RandomNetwork) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "random.onnx"
        path.write_bytes(network.model.SerializeToString())
        imported = import_network(read(path), keep_activation=True)
    model, names = _backward(imported)
    dims = [d.dim_value for d in network.model.graph.input[0].type.tensor_type.shape.dim]
    symbolic = isinstance(type_of(imported.network.input).dims[0], str)
    rng = np.random.default_rng(0)
    initializers = {t.name: onnx.numpy_helper.to_array(t) for t in network.model.graph.initializer}
    weights = {**initializers, **imported.network.values}
    for batch in (3, 2) if symbolic else (int(network.batch),):
        x = rng.standard_normal((batch, *dims[1:]))
        v = rng.standard_normal((batch, int(type_of(imported.network.output).dims[1])))
        found = model.run(None, {"image": x, "v": v, **imported.network.values})
        loss, *ours = map(np.asarray, found)
        theirs = _pytorch(network.model, x, v, weights)
        assert loss == pytest.approx(theirs[""], rel=TOLERANCE, abs=TOLERANCE)
        largest = max(float(np.abs(theirs[name]).max(initial=0)) for name in names)
        for name, gradient in zip(names, ours, strict=True):
            expected = theirs[name]
            assert gradient.shape == expected.shape, name
            scale = np.abs(expected).max(initial=0) + 1e-3 * largest + NOISE
            error = np.abs(gradient - expected).max(initial=0)
            assert error <= TOLERANCE * scale, f"{name}: off by {error / scale:.1e}"


def _backward(imported: Imported) -> tuple[Any, list[str]]:
    """The training form's loss Σ v·y and its gradient for each parameter, and their names."""
    network = imported.network
    builder = Builder(ir.Graph([], [], nodes=[], opset_imports={"": OPSET}, name="case"))
    bindings = {value: builder.input(str(value.name), type_of(value)) for value in network.graph.inputs}
    form = TrainingForm(lambda: pytest.fail("nothing random is in these networks"))
    values = transcribe(network.graph, builder, bindings, form.rewrites)
    y = values[network.output]
    loss = builder.op("ReduceSum", builder.op("Mul", y, builder.input("v", type_of(y))), keepdims=0)
    trained = [v for v in network.graph.inputs[1:] if network.parameters[str(v.name)].kind != "statistic"]
    found = gradients(builder, loss, [bindings[value] for value in trained])
    names = []
    builder.graph.outputs.append(loss)
    for value, gradient in zip(trained, found, strict=True):
        if gradient is not None:
            names.append(str(value.name))
            builder.graph.outputs.append(builder.op("Identity", gradient))
    return evaluator(lowered(builder.graph)), names


def _pytorch(model: onnx.ModelProto, x: Array, v: Array, weights: Mapping[str, Array]) -> dict[str, Array]:
    """The source's own graph, node by node, in training form: the loss (under "") and all gradients."""
    leaves = {name: torch.tensor(array, requires_grad=True) for name, array in weights.items()}
    values: dict[str, Any] = {"": None, "image": torch.tensor(x), **leaves}
    for node in model.graph.node:
        given = {item.name: onnx.helper.get_attribute_value(item) for item in node.attribute}
        attributes = {k: a.decode() if isinstance(a, bytes) else a for k, a in given.items()}
        if node.op_type == "Constant":
            assert isinstance(attributes["value"], onnx.TensorProto)
            constant = _constant(onnx.numpy_helper.to_array(attributes["value"]))
            values.setdefault(node.output[0], constant)
            continue
        operands = [values[name] for name in node.input]
        if node.op_type == "BatchNormalization":
            attributes["momentum"] = 0.9
        elif (
            node.op_type == "Reshape"
            and operands[1][0] == model.graph.input[0].type.tensor_type.shape.dim[0].dim_value
        ):
            operands[1] = [len(x), *operands[1][1:]]
        found = OPERATORS[node.op_type](*operands, **attributes)
        outputs = [found] if isinstance(found, torch.Tensor) else found
        values.update(zip(node.output, outputs, strict=True))
    loss = (values[model.graph.output[0].name] * torch.tensor(v)).sum()
    loss.backward()
    zero = {name: torch.zeros_like(leaf) for name, leaf in leaves.items()}
    gradients = {name: (zero[name] if w.grad is None else w.grad).numpy() for name, w in leaves.items()}
    return {"": loss.detach().numpy(), **gradients}


def _constant(array: Array) -> Any:
    """As the functions take it: integers as lists, the scales of a Resize as an array, numbers as tensors."""
    if array.dtype == np.float64:
        return torch.tensor(array)
    return array if array.dtype == np.float32 else array.tolist()


OPERATORS: dict[str, Any] = {
    **FUNCTIONS,
    "BatchNormalization": FUNCTIONS["BatchNormalizationTraining"],
    "GridSample": lambda x, grid, mode, **rest: FUNCTIONS["GridSample"](
        x, grid, mode=mode.replace("linear", "bilinear"), **rest
    ),
    "GlobalMaxPool": lambda x: x.amax((2, 3), keepdim=True),
    "Greater": torch.gt,
}
