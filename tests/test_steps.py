"""Whole training steps: both forms of the step agree, and twenty steps follow PyTorch."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from onnx import inliner
from onnx.reference import ReferenceEvaluator

from cnnc import Program, Tensor, initial, losses, metrics, nn, optim
from cnnc.bundle import GRAPHS, NEXT
from cnnc.compiler import Compiled, compile_program
from cnnc.graph_file import known_graphs, load_program
from cnnc.ir import Network

Arrays = dict[str, Any]

OPTIMIZERS = {
    "sgd": optim.SGD(learning_rate=0.01, momentum=0.9, nesterov=True, weight_decay=1e-3),
    "adam": optim.Adam(learning_rate=1e-3, clip_norm=0.5),
    "adamw": optim.AdamW(learning_rate=1e-3, weight_decay=0.05),
}


SMALL_RATE = {"sgd": 1e-4, "adam": 1e-5, "adamw": 1e-5}
GRAPHS_AND_MORE = [*known_graphs(), "dropout"]


@cache
def _program(graph: str) -> Program:
    if graph == "dropout":
        return Program(
            input=Tensor("image", ("N", 1, 10, 9)),
            model=nn.Sequential(
                nn.Conv2d(6, 3, padding="same", stride=2, activation="relu"),
                nn.Dropout(0.3),
                nn.Conv2d(8, 3, groups=2, bias=False),
                nn.BatchNorm2d(),
                nn.LeakyReLU(),
                nn.Flatten(),
                nn.Dropout(0.5),
                nn.Dense(10),
            ),
            loss=losses.SoftmaxCrossEntropy(label_smoothing=0.1),
            optimizer=optim.Adam(),
            metrics=[metrics.Accuracy()],
            name="dropout",
        )
    if graph == "resnet_cifar of 20 layers":
        return load_program("resnet_cifar", {"depth": "20"})
    return load_program(graph, {"depth": "8", "width": "4"} if graph == "resnet_cifar" else {})


@cache
def _compiled(graph: str, optimizer: str, dtype: ir.DataType = ir.DataType.FLOAT) -> Compiled:
    return compile_program(dataclasses.replace(_program(graph), optimizer=OPTIMIZERS[optimizer]), dtype=dtype)


def _with_masks(model: bytes) -> onnx.ModelProto:
    """train.onnx with its dropout masks as further outputs, for an oracle that can't draw them itself."""
    proto = onnx.load_from_string(model)
    masks = [node.output[0] for node in proto.graph.node if node.op_type.startswith("DropoutMask")]
    proto.graph.output.extend(info for info in proto.graph.value_info if info.name in masks)
    return proto


def _runner(model: bytes) -> Callable[[Mapping[str, Any]], Arrays]:
    """A model on ONNX Runtime as a function from named inputs to named outputs."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]

    def run(feeds: Mapping[str, Any]) -> Arrays:
        return dict(
            zip(names, session.run(None, {i.name: feeds[i.name] for i in session.get_inputs()}), strict=True)
        )

    return run


def _batch(compiled: Compiled, size: int, step: int) -> Arrays:
    spec = compiled.manifest.input
    shape = (size, *(int(d) for d in spec.shape[1:]))
    image = initial.draw({"kind": "uniform", "bound": 1.0}, shape, spec.dtype, step, "image")
    if any(
        node.op_type == "MaxPool" for node in onnx.load_from_string(compiled.graphs["infer.onnx"]).graph.node
    ):
        image[:, :, : shape[2] // 4] = 0.25  # a blank region, as real images have: windows full of ties
    labels = (initial.uniforms(size, step, "label") * 10).astype(np.int64)
    return {spec.name: image, "label": labels, "seed": np.array(7), "lr_scale": np.array(1.0, spec.dtype)}


def _next(outputs: Arrays) -> Arrays:
    return {name.removeprefix(NEXT): value for name, value in outputs.items() if name.startswith(NEXT)}


@pytest.mark.parametrize("graph", GRAPHS_AND_MORE)
def test_files_are_standard_onnx(graph: str) -> None:
    compiled = _compiled(graph, "adam")
    assert set(compiled.graphs) == set(GRAPHS)
    for data in compiled.graphs.values():
        model = onnx.load_from_string(data)
        onnx.checker.check_model(model, full_check=True)
        flat = inliner.inline_local_functions(model)
        assert {node.domain for node in flat.graph.node} <= {""}
        onnx.checker.check_model(flat, full_check=True)
    bodies = {
        node.domain for f in onnx.load_from_string(compiled.graphs["train.onnx"]).functions for node in f.node
    }
    assert bodies == {""}


@pytest.mark.parametrize("graph", GRAPHS_AND_MORE)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_grad_and_apply_are_the_same_step(graph: str, optimizer: str) -> None:
    compiled = _compiled(graph, optimizer)
    train, grad, apply = (_runner(compiled.graphs[f"{n}.onnx"]) for n in ("train", "grad", "apply"))
    state: Arrays = dict(compiled.state)
    for step, size in enumerate((3, 3, 1)):
        batch = _batch(compiled, size, step)
        whole = train({**batch, **state})
        first = grad({**batch, **state})
        both = {**_next(first), **_next(apply({**state, **first, **batch}))}
        assert whole["loss"] == first["loss"]
        state = _next(whole)
        assert both.keys() == state.keys()
        for name, value in state.items():
            np.testing.assert_allclose(both[name], value, rtol=1e-6, atol=1e-7, err_msg=name)


@pytest.mark.oracle
@pytest.mark.parametrize("graph", [g for g in GRAPHS_AND_MORE if g != "resnet_cifar"])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_twenty_steps_follow_pytorch(graph: str, optimizer: str) -> None:
    compiled = _compiled(graph, optimizer)
    train = _runner(_with_masks(compiled.graphs["train.onnx"]).SerializeToString())
    _follow(
        compiled,
        graph,
        OPTIMIZERS[optimizer],
        train,
        sizes=[8] * 7 + [5] + [8] * 12,
        loss_within=1e-4,
        state_within=1e-3,
    )


@pytest.mark.oracle
@pytest.mark.slow
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_twenty_steps_of_twenty_layers_follow_pytorch(optimizer: str) -> None:
    """At small rates: at the usual ones rounding grows so fast that PyTorch leaves its own float64, too.

    Biases then move by 1e-4 from the 0 they begin at, so what they are measured against is 0.01 at least.
    """
    graph = "resnet_cifar of 20 layers"
    slow = dataclasses.replace(OPTIMIZERS[optimizer], learning_rate=SMALL_RATE[optimizer])
    compiled = compile_program(dataclasses.replace(_program(graph), optimizer=slow))
    train = _runner(compiled.graphs["train.onnx"])
    sizes = [16] * 7 + [5] + [16] * 12
    _follow(compiled, graph, slow, train, sizes=sizes, loss_within=1e-4, state_within=1e-3, least=1e-2)


@pytest.mark.oracle
@pytest.mark.slow
@pytest.mark.parametrize("graph", GRAPHS_AND_MORE)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_twenty_steps_follow_pytorch_in_float64(graph: str, optimizer: str) -> None:
    """To nine digits, where float32 can't tell: batch normalisation on small batches is chaotic at kinks."""
    compiled = _compiled(graph, optimizer, ir.DataType.DOUBLE)
    evaluator = ReferenceEvaluator(_with_masks(compiled.graphs["train.onnx"]))

    def train(feeds: Mapping[str, Any]) -> Arrays:
        names = evaluator.input_names
        return dict(
            zip(evaluator.output_names, evaluator.run(None, {n: feeds[n] for n in names}), strict=True)
        )

    _follow(
        compiled,
        graph,
        OPTIMIZERS[optimizer],
        train,
        sizes=[3] * 7 + [2] + [3] * 12,
        loss_within=1e-9,
        state_within=1e-8,
    )


def _follow(
    compiled: Compiled,
    graph: str,
    settings: optim.Optimizer,
    train: Callable[[Mapping[str, Any]], Arrays],
    *,
    sizes: list[int],
    loss_within: float,
    state_within: float,
    least: float = 1e-3,
) -> None:
    """Train with `train` and with PyTorch, and compare the loss of each step and the last state."""
    torch = pytest.importorskip("torch", reason="PyTorch is the oracle of whole steps (extra [oracle])")
    from torch_network import forward

    network = _program(graph).trace()
    tensors = {
        e.name: torch.tensor(compiled.state[e.name]) for e in compiled.manifest.entries("parameter", "buffer")
    }
    parameters = {e.name: tensors[e.name].requires_grad_() for e in compiled.manifest.entries("parameter")}
    peer = _torch_optimizer(torch, settings, network, parameters)
    smoothing = compiled.manifest.loss["label_smoothing"]
    state: Arrays = dict(compiled.state)
    for step, size in enumerate(sizes):
        batch = _batch(compiled, size, step)
        outputs = train({**batch, **state})
        state = _next(outputs)
        masks = {n: torch.tensor(v) for n, v in outputs.items() if n.endswith("/mask")}
        logits, statistics = forward(
            network, torch.tensor(batch[compiled.manifest.input.name]), tensors, masks
        )
        loss = torch.nn.functional.cross_entropy(
            logits, torch.tensor(batch["label"]), label_smoothing=smoothing
        )
        peer.zero_grad()
        loss.backward()
        if settings.clip_norm is not None:
            torch.nn.utils.clip_grad_norm_(parameters.values(), settings.clip_norm)
        peer.step()
        tensors |= statistics
        assert outputs["loss"] == pytest.approx(loss.item(), rel=loss_within), step
    for name, value in tensors.items():
        ours, theirs = state[name], value.detach().numpy()
        assert np.linalg.norm(ours - theirs) <= state_within * (np.linalg.norm(theirs) + least), name


def _torch_optimizer(torch: Any, optimizer: Any, network: Network, parameters: Mapping[str, Any]) -> Any:
    """The same optimizer in PyTorch, weight decay on weights only."""
    kinds = {name: network.parameters[name].kind for name in parameters}
    groups = [
        {
            "params": [p for n, p in parameters.items() if kinds[n] == "weight"],
            "weight_decay": optimizer.weight_decay,
        },
        {"params": [p for n, p in parameters.items() if kinds[n] != "weight"], "weight_decay": 0.0},
    ]
    if isinstance(optimizer, optim.SGD):
        return torch.optim.SGD(
            groups, lr=optimizer.learning_rate, momentum=optimizer.momentum, nesterov=optimizer.nesterov
        )
    kind = torch.optim.AdamW if isinstance(optimizer, optim.AdamW) else torch.optim.Adam
    betas = (optimizer.beta1, optimizer.beta2)
    return kind(groups, lr=optimizer.learning_rate, betas=betas, eps=optimizer.epsilon)
