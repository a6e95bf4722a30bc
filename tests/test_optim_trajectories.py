"""Every optimizer: it converges, follows its peer for twenty steps, and has both forms of the step."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest
from exported import exported
from formulas import FORMULAS
from traced import Array, lowered

from cnnc import Program, Tensor, losses, nn, optim
from cnnc.bundle import NEXT
from cnnc.compiler import compile_program
from cnnc.ir import Builder, TensorType
from cnnc.opset import OPSET
from cnnc.optim import Optimizer

STEPS = 20
SHAPES = {"matrix": (4, 6), "filters": (3, 2, 3, 5), "bias": (6,)}
RNG = np.random.default_rng(0)
START = {name: RNG.standard_normal(shape) for name, shape in SHAPES.items()}
TARGET = {name: RNG.standard_normal(shape) for name, shape in SHAPES.items()}
SCALES = {name: RNG.uniform(0.5, 3.0, shape) for name, shape in SHAPES.items()}

OPTIMIZERS: dict[str, Optimizer] = {
    "sgd": optim.SGD(0.05),
    "sgd_momentum": optim.SGD(0.02, momentum=0.9, weight_decay=0.01),
    "sgd_nesterov": optim.SGD(0.02, momentum=0.9, nesterov=True),
    "adam": optim.Adam(0.05, weight_decay=0.01),
    "adamw": optim.AdamW(0.05, weight_decay=0.01),
    "nadam": optim.NAdam(0.05, weight_decay=0.01),
    "rmsprop": optim.RMSprop(0.02, weight_decay=0.01),
    "rmsprop_momentum": optim.RMSprop(0.005, momentum=0.9),
    "rmsprop_centered": optim.RMSprop(0.01, rho=0.95, centered=True, epsilon=1e-3),
    "rmsprop_centered_momentum": optim.RMSprop(0.003, rho=0.95, momentum=0.9, centered=True, epsilon=1e-3),
    "adagrad": optim.Adagrad(0.5, initial=0.1, weight_decay=0.01),
    "adadelta": optim.Adadelta(1.0, epsilon=1e-4, weight_decay=0.01),
    "adafactor": optim.Adafactor(0.1, weight_decay=0.01),
    "lion": optim.Lion(0.02, weight_decay=0.01),
    "lamb": optim.LAMB(0.02),
}


def loss(parameters: Mapping[str, Array]) -> float:
    """Σ scale·(p - target)²/2, in float64."""
    return float(sum((SCALES[name] * (p - TARGET[name]) ** 2).sum() / 2 for name, p in parameters.items()))


def gradients(parameters: Mapping[str, Array]) -> dict[str, Array]:
    """The gradients of `loss`."""
    return {name: SCALES[name] * (p - TARGET[name]) for name, p in parameters.items()}


def trajectory(optimizer: Optimizer, dtype: type = np.float32) -> Iterator[dict[str, Array]]:
    """The parameters after each step of the optimizer's own graph, on ONNX Runtime."""
    builder = Builder(ir.Graph([], [], nodes=[], opset_imports={"": OPSET}, name="update"))
    kind = ir.DataType.from_numpy(np.dtype(dtype))
    step = builder.input("step", TensorType(ir.DataType.INT64, ()))
    builder.graph.outputs.append(builder.op("Add", step, 1, name="next/step"))
    scalars = optimizer.scalars(builder, step, optimizer.schedule.emit(builder, step, kind))
    state: dict[str, Array] = {"step": np.array(0)}
    for name, start in START.items():
        slots = optimizer.slots(start.shape)
        kept: dict[str, Array] = {name: start.astype(dtype)}
        kept |= {f"{name}/{s.name}": np.full(s.shape, s.value, dtype) for s in slots}
        p, *values = (builder.input(key, TensorType(kind, value.shape)) for key, value in kept.items())
        g = builder.input(f"gradient/{name}", TensorType(kind, start.shape))
        after, following = optimizer.update(builder, p, g, values, scalars, name != "bias")
        for key, value in zip(kept, (after, *following), strict=True):
            builder.graph.outputs.append(builder.op("Identity", value, name=f"next/{key}"))
        state |= kept
    session = ort.InferenceSession(lowered(builder.graph).SerializeToString())
    names = [output.name for output in session.get_outputs()]
    while True:
        found = gradients({name: state[name] for name in SHAPES})
        feeds: dict[str, Array] = {f"gradient/{name}": g.astype(dtype) for name, g in found.items()}
        values = session.run(names, state | feeds)
        state = {n.removeprefix(NEXT): v for n, v in zip(names, values, strict=True)}
        yield {name: state[name] for name in SHAPES}


def test_every_optimizer_has_a_row() -> None:
    assert exported(optim, Optimizer) == {type(optimizer) for optimizer in OPTIMIZERS.values()}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_converges(name: str) -> None:
    """To a hundredth of the loss; weight decay and steps of one length keep it off 0."""
    steps = trajectory(OPTIMIZERS[name])
    for _ in range(400):
        parameters = next(steps)
    assert loss(parameters) < 0.01 * loss(START)


@pytest.mark.oracle
@pytest.mark.parametrize("name", [name for name in OPTIMIZERS if name not in ("lion", "lamb")])
@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float32, 1e-5), (np.float64, 1e-12)])
def test_twenty_steps_follow_pytorch(name: str, dtype: type, tolerance: float) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is the oracle of optimizers (extra [oracle])")
    optimizer = OPTIMIZERS[name]
    if isinstance(optimizer, optim.NAdam):
        tolerance = max(tolerance, 1e-8)  # PyTorch keeps the product of all μ in float32
    theirs = {key: torch.tensor(value, requires_grad=True) for key, value in START.items()}
    groups = [
        {"params": [p for key, p in theirs.items() if key != "bias"], "weight_decay": optimizer.weight_decay},
        {"params": [theirs["bias"]], "weight_decay": 0.0},
    ]
    peer = pytorch(torch, optimizer)(groups)
    for _, ours in zip(range(STEPS), trajectory(optimizer, dtype), strict=False):
        found = gradients({key: p.detach().numpy() for key, p in theirs.items()})
        for key, p in theirs.items():
            p.grad = torch.tensor(found[key])
        peer.step()
        for key, p in theirs.items():
            np.testing.assert_allclose(ours[key], p.detach(), rtol=tolerance, atol=tolerance, err_msg=key)


def pytorch(torch: Any, o: Any) -> Callable[..., Any]:
    """The peer of an optimizer, still without parameters."""

    def make(kind: str, **options: Any) -> Callable[..., Any]:
        return lambda groups: getattr(torch.optim, kind)(groups, lr=o.learning_rate, **options)

    match o:
        case optim.SGD():
            return make("SGD", momentum=o.momentum, nesterov=o.nesterov)
        case optim.NAdam():
            return make("NAdam", betas=(o.beta1, o.beta2), eps=o.epsilon, momentum_decay=o.momentum_decay)
        case optim.Adam():
            return make(type(o).__name__, betas=(o.beta1, o.beta2), eps=o.epsilon)
        case optim.RMSprop():
            return make("RMSprop", alpha=o.rho, eps=o.epsilon, momentum=o.momentum, centered=o.centered)
        case optim.Adagrad():
            return make("Adagrad", initial_accumulator_value=o.initial, eps=o.epsilon)
        case optim.Adadelta():
            return make("Adadelta", rho=o.rho, eps=o.epsilon)
        case optim.Adafactor():
            options = {"beta2_decay": o.decay_exponent, "d": o.clip_threshold}
            return make("Adafactor", eps=(o.epsilon, o.minimum), **options)
    raise NotImplementedError(o)


@pytest.mark.parametrize(
    "optimizer",
    [optim.Lion(0.01, weight_decay=0.01), optim.LAMB(0.02), optim.LAMB(0.02, decay_all=True)],
    ids=str,
)
def test_twenty_steps_follow_the_formula(optimizer: optim.Lion | optim.LAMB) -> None:
    """Those that PyTorch does not have, with the bias corrections as their papers write them."""
    state = {
        key: (value, *(np.zeros(s.shape) for s in optimizer.slots(value.shape)))
        for key, value in START.items()
    }
    for t, ours in zip(range(1, STEPS + 1), trajectory(optimizer, np.float64), strict=False):
        found = gradients({key: values[0] for key, values in state.items()})
        for key, (p, *slots) in state.items():
            decayed = key != "bias" or optimizer.decay_all
            options: dict[str, Any] = {"beta1": optimizer.beta1, "beta2": optimizer.beta2}
            options["decoupled_decay"] = optimizer.weight_decay if decayed else 0.0
            corrections: tuple[float, ...] = ()
            if isinstance(optimizer, optim.LAMB):
                options |= {"epsilon": optimizer.epsilon, "adapt": decayed}
                corrections = 1 - optimizer.beta1**t, 1 - optimizer.beta2**t
            op = "LambUpdate" if isinstance(optimizer, optim.LAMB) else "LionUpdate"
            state[key] = FORMULAS[op](p, found[key], *slots, optimizer.learning_rate, *corrections, **options)
            np.testing.assert_allclose(ours[key], state[key][0], rtol=1e-11, atol=1e-11, err_msg=key)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_grad_and_apply_are_the_same_step(name: str) -> None:
    program = Program(
        input=Tensor("image", ("N", 2, 6, 6)),
        model=nn.Sequential(nn.Conv2d(3, 3), nn.BatchNorm2d(), nn.Flatten(), nn.Dense(4)),
        loss=losses.SoftmaxCrossEntropy(),
        optimizer=OPTIMIZERS[name],
    )
    compiled = compile_program(program)
    sessions = {n: ort.InferenceSession(compiled.graphs[f"{n}.onnx"]) for n in ("train", "grad", "apply")}
    state: dict[str, Any] = dict(compiled.state)
    for size in (5, 3, 1):
        feeds = {
            "image": RNG.standard_normal((size, 2, 6, 6)).astype(np.float32),
            "label": RNG.integers(0, 4, size),
            "lr_scale": np.array(1.0, np.float32),
            **state,
        }
        whole, first = (_run(sessions[n], feeds) for n in ("train", "grad"))
        both = _next(first) | _next(_run(sessions["apply"], feeds | first))
        state = _next(whole)
        assert both.keys() == state.keys() == compiled.state.keys()
        for key, value in state.items():
            np.testing.assert_allclose(both[key], value, rtol=1e-6, atol=1e-7, err_msg=key)


def _run(session: ort.InferenceSession, feeds: Mapping[str, Array]) -> dict[str, Any]:
    names = [output.name for output in session.get_outputs()]
    values = session.run(names, {i.name: feeds[i.name] for i in session.get_inputs()})
    return dict(zip(names, values, strict=True))


def _next(outputs: Mapping[str, Any]) -> dict[str, Any]:
    return {name.removeprefix(NEXT): value for name, value in outputs.items() if name.startswith(NEXT)}
