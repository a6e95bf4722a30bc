"""Parameter groups: other learning rates and weight decay for some parameters, in both forms of the step."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
from command_line import call, done
from foreign_models import classifier, save

from cnnc import Program, Tensor, losses, nn, optim, schedules
from cnnc.bundle import NEXT, Bundle, Manifest
from cnnc.compiler import Compiled, compile_program
from cnnc.errors import GraphFileError
from cnnc.optim import Group

RNG = np.random.default_rng(0)
IMAGES = RNG.standard_normal((6, 2, 6, 6)).astype(np.float32)
LABELS = RNG.integers(0, 4, 6)
STEPS, LR_SCALE = 12, 0.5
GROUPS = (
    Group(r"conv1\..*", learning_rate=0.002, weight_decay=0.3),
    Group(r"dense1\.weight", weight_decay=0.0),
    Group(r"dense1\.bias", learning_rate=0.1),
)
RATES = {"conv1.weight": 0.002, "conv1.bias": 0.002, "dense1.weight": 0.02, "dense1.bias": 0.1}
DECAYS = {"conv1.weight": 0.3, "conv1.bias": 0.0, "dense1.weight": 0.0, "dense1.bias": 0.0}
OPTIMIZERS: dict[str, tuple[Callable[..., optim.Optimizer], str, dict[str, Any]]] = {
    "sgd": (lambda **k: optim.SGD(momentum=0.9, weight_decay=0.1, **k), "SGD", {"momentum": 0.9}),
    "adam": (lambda **k: optim.Adam(weight_decay=0.1, clip_norm=0.5, **k), "Adam", {"eps": 1e-7}),
    "adamw": (lambda **k: optim.AdamW(weight_decay=0.1, **k), "AdamW", {"eps": 1e-7}),
    "adafactor": (lambda **k: optim.Adafactor(weight_decay=0.1, **k), "Adafactor", {}),
}


def _program(optimizer: optim.Optimizer, **changes: Any) -> Program:
    model = nn.Sequential(nn.Conv2d(3, 3, activation="relu"), nn.Flatten(), nn.Dense(4))
    fields = {"input": Tensor("image", ("N", 2, 6, 6)), "model": model, "name": "grouped", **changes}
    return Program(**fields, loss=losses.SoftmaxCrossEntropy(), optimizer=optimizer)


def _session(compiled: Compiled, name: str) -> Callable[[Mapping[str, Any]], dict[str, Any]]:
    session = ort.InferenceSession(compiled.graphs[name])
    names = [output.name for output in session.get_outputs()]

    def run(feeds: Mapping[str, Any]) -> dict[str, Any]:
        values = session.run(names, {value.name: feeds[value.name] for value in session.get_inputs()})
        return {name.removeprefix(NEXT): value for name, value in zip(names, values, strict=True)}

    return run


def _feeds(state: Mapping[str, Any]) -> dict[str, Any]:
    return {"image": IMAGES, "label": LABELS, "lr_scale": np.array(LR_SCALE, np.float32), **state}


@pytest.mark.oracle
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_groups_are_pytorchs_parameter_groups(name: str) -> None:
    """With a schedule and another base rate at run time, which every group follows."""
    torch = pytest.importorskip("torch", reason="PyTorch is the oracle of groups (extra [oracle])")
    make, peer, given = OPTIMIZERS[name]
    optimizer = make(learning_rate=schedules.Step(0.02, 5, 0.5), groups=GROUPS)
    compiled = compile_program(_program(optimizer))
    theirs = {key: torch.tensor(compiled.state[key].astype(np.float64), requires_grad=True) for key in RATES}
    groups = [
        {"params": [p], "lr": RATES[key] * LR_SCALE, "weight_decay": DECAYS[key]} for key, p in theirs.items()
    ]
    stepper = getattr(torch.optim, peer)(groups, **given)
    schedule = torch.optim.lr_scheduler.StepLR(stepper, 5, 0.5)
    step, state = _session(compiled, "train.onnx"), dict(compiled.state)
    images, labels = torch.tensor(IMAGES.astype(np.float64)), torch.tensor(LABELS)
    for _ in range(STEPS):
        state = {k: v for k, v in step(_feeds(state)).items() if k in state}
        stepper.zero_grad()
        x = torch.relu(torch.nn.functional.conv2d(images, theirs["conv1.weight"], theirs["conv1.bias"]))
        logits = x.flatten(1) @ theirs["dense1.weight"] + theirs["dense1.bias"]
        torch.nn.functional.cross_entropy(logits, labels).backward()
        if optimizer.clip_norm:
            torch.nn.utils.clip_grad_norm_(list(theirs.values()), optimizer.clip_norm)
        stepper.step()
        schedule.step()
    for key, p in theirs.items():
        np.testing.assert_allclose(state[key], p.detach(), rtol=2e-4, atol=2e-5, err_msg=key)


def test_a_group_is_an_optimizer_of_its_own() -> None:
    """Each parameter moves as it does where all have its group's rate and decay; so do both forms."""
    compiled = compile_program(_program(optim.SGD(0.02, momentum=0.9, weight_decay=0.1, groups=GROUPS)))
    after = _session(compiled, "train.onnx")(_feeds(compiled.state))
    for name, rate in RATES.items():
        plain = compile_program(_program(optim.SGD(rate, momentum=0.9, weight_decay=DECAYS[name])))
        expected = _session(plain, "train.onnx")(_feeds(plain.state))
        np.testing.assert_allclose(after[name], expected[name], rtol=1e-6, atol=1e-8, err_msg=name)
    gradient = _session(compiled, "grad.onnx")(_feeds(compiled.state))
    applied = _session(compiled, "apply.onnx")(_feeds(compiled.state) | gradient)
    for name in RATES:
        np.testing.assert_allclose(applied[name], after[name], rtol=1e-6, atol=1e-8, err_msg=name)


def test_no_groups_leave_no_trace() -> None:
    plain = compile_program(_program(optim.SGD(0.1)))
    assert "groups" not in plain.manifest.optimizer
    same = compile_program(_program(optim.SGD(0.1, groups=[Group(".*", learning_rate=0.1)])))
    assert same.graphs == plain.graphs


def test_the_manifest_tells_groups() -> None:
    manifest = compile_program(_program(optim.Adam(groups=GROUPS))).manifest
    assert manifest.optimizer["groups"][2] == {
        "match": r"dense1\.bias", "learning_rate": 0.1, "weight_decay": None,
    }  # fmt: skip
    assert Manifest.from_json(manifest.to_json()) == manifest


@pytest.mark.parametrize(
    ("groups", "words"),
    [
        ([Group("conv2.*", learning_rate=1)], r"'conv2.*' matches no parameter. Did you mean 'conv1.*'?"),
        ([Group("conv1.wieght", learning_rate=1)], "Did you mean 'conv1.weight'?"),
        ([Group("(", learning_rate=1)], "no regular expression"),
        ([Group(r".*\.bias", weight_decay=1)], "matches only parameters that do not decay: conv1.bias"),
        ([Group("c.*", learning_rate=1), Group(".*ias", learning_rate=2)], "two groups give 'conv1.bias' a"),
    ],
)
def test_groups_that_can_not_be(groups: list[Group], words: str) -> None:
    with pytest.raises(GraphFileError) as error:
        compile_program(_program(optim.SGD(0.1, groups=groups)))
    assert words in str(error.value)
    assert "test_optim_groups.py:" in str(error.value)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Group("conv1"),
        lambda: Group(3, learning_rate=1.0),  # type: ignore[arg-type]  # wrong on purpose
        lambda: Group("conv1", learning_rate=-1.0),
        lambda: Group("conv1", weight_decay=float("nan")),
        lambda: optim.Adam(groups=["conv1"]),  # type: ignore[list-item]  # wrong on purpose
        lambda: optim.Adam(groups=Group("conv1", learning_rate=1)),  # type: ignore[arg-type]  # wrong on purpose
    ],
)
def test_wrong_groups(make: Callable[[], object]) -> None:
    with pytest.raises(GraphFileError) as error:
        make()
    assert "test_optim_groups.py:" in str(error.value)


@pytest.mark.usefixtures("in_process")
def test_the_command_line(tmp_path: Path) -> None:
    model, bundle = save(classifier(), tmp_path / "m.onnx"), tmp_path / "b"
    build = ("build", model, "-o", bundle, "--optimizer", "sgd", "--lr", "0.1")
    done(*build, "--lr-for", "conv.*=0.01", "--decay-for", "fc.weight=0.5", "--weight-decay", "0.25")
    optimizer = Bundle.open(bundle).manifest.optimizer
    assert (optimizer["weight_decay"], [g["match"] for g in optimizer["groups"]]) == (
        0.25,
        ["conv.*", "fc.weight"],
    )
    for options, words in (
        (("--lr-for", "cnv.*=0.01"), "Did you mean 'conv"),
        (("--lr-for", "conv.*"), "REGEX=NUMBER"),
        (("--decay-for", "conv.*=much"), "REGEX=NUMBER"),
        (("--lr-for", "conv.*=-1"), "REGEX=NUMBER"),
        (("--weight-decay", "-1"), "--weight-decay"),
        (("--lr-for", "conv.*=1", "--freeze", "conv.*"), "matches no parameter"),
    ):
        result = call(*build, *options)
        assert (result.status, words in result.err) == (2, True), result.err
