"""Augmentation as part of a program: the graphs it is in, every runtime, statistics, and what is refused."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from augmented import COLOUR, LABEL, Array, model, run, seen, stored
from exported import exported
from generator import chi_square, drawn
from onnx import inliner
from test_steps import _next, _runner

from cnnc import Program, Tensor, augment, losses, metrics, nn, optim
from cnnc.bundle import Manifest, TargetSpec, write_bundle
from cnnc.compiler import Compiled, compile_program
from cnnc.deploy.runtimes import RUNTIMES
from cnnc.deploy.verify import verify

PRESENT = [runtime for runtime in RUNTIMES if not runtime.absence()]
ALL: list[augment.Augmentation] = [
    augment.RandomHorizontalFlip(),
    augment.RandomVerticalFlip(),
    augment.RandomCrop(2),
    augment.RandomCrop(2, "reflect"),
    augment.RandomErasing(),
    augment.RandomErasing(value="random"),
    augment.CutMix(),
    augment.RandomChoice([augment.MixUp(), augment.CutMix()]),
    augment.RandomRotation(),
    augment.RandomAffine(10, 0.1, (0.8, 1.2), 5),
    augment.RandomResizedCrop(),
    augment.ColorJitter(0.4, 0.4, 0.4, 0.1),
    augment.MixUp(0.2),
]


def test_every_augmentation_has_a_row() -> None:
    assert exported(augment, augment.Augmentation) == {type(each) for each in ALL}


def program(*augmentations: augment.Augmentation, **fields: Any) -> Program:
    return Program(
        **{
            "input": Tensor("image", ("N", 3, 9, 8), mean=COLOUR.mean, std=COLOUR.std),
            "model": nn.Sequential(nn.Conv2d(4, 3, activation="relu"), nn.Flatten(), nn.Dense(5)),
            "loss": losses.SoftmaxCrossEntropy(),
            "optimizer": optim.SGD(0.1, momentum=0.9),
            "metrics": [metrics.Accuracy()],
            "augment": augmentations,
            "name": "augmented",
            **fields,
        }
    )


def batch(count: int = 6, **more: Any) -> dict[str, Any]:
    feeds = {"image": seen(stored(count), COLOUR), "label": np.arange(count) % 5}
    return {**feeds, "seed": np.array(7), "lr_scale": np.array(1.0, np.float32), **more}


# The graphs.


def test_only_what_trains_is_augmented() -> None:
    compiled, plain = compile_program(program(*ALL)), compile_program(program())
    for name, graph in compiled.graphs.items():
        nodes = [node.name for node in onnx.load_from_string(graph).graph.node]
        assert any(node.startswith("augment/") for node in nodes) == (name in ("train.onnx", "grad.onnx"))
    assert compiled.graphs["eval.onnx"] == plain.graphs["eval.onnx"]
    assert compiled.graphs["infer.onnx"] == plain.graphs["infer.onnx"]
    assert (compiled.manifest.scalars["seed"], "seed" in plain.manifest.scalars) == (0, False)


def test_the_manifest_says_what_is_augmented() -> None:
    compiled = compile_program(program(augment.RandomCrop(2), augment.RandomChoice([augment.MixUp(0.2)])))
    manifest = Manifest.from_json(compiled.manifest.to_json())
    crop, choice = manifest.augment
    assert crop == {"name": "RandomCrop", "padding": [2, 2], "padding_mode": "constant", "fill": 0.0}
    assert choice["augmentations"] == [{"name": "MixUp", "alpha": 0.2, "p": 1.0}]


def test_both_forms_of_the_step_draw_the_same() -> None:
    compiled = compile_program(program(*ALL))
    train, grad, apply = (_runner(compiled.graphs[f"{n}.onnx"]) for n in ("train", "grad", "apply"))
    state = dict(compiled.state)
    for size in (6, 6, 1):
        whole, first = train({**batch(size), **state}), grad({**batch(size), **state})
        both = {**_next(first), **_next(apply({**state, **first, **batch(size)}))}
        assert whole["loss"] == first["loss"]
        assert np.isfinite(whole["loss"])
        assert whole["metrics/loss/count"] == whole["metrics/accuracy/count"] == size
        state = _next(whole)
        for name, value in state.items():
            np.testing.assert_allclose(both[name], value, rtol=1e-6, atol=1e-7, err_msg=name)


def _gradient(compiled: Compiled) -> Callable[..., Array]:
    run = _runner(compiled.graphs["grad.onnx"])
    return lambda **feeds: run({**batch(), **compiled.state, **feeds})["gradient"]


def test_the_gradient_is_that_of_the_augmented_batch() -> None:
    """Of mixed targets: the mean of each one's gradient by its share."""
    compiled = compile_program(program(augment.RandomCrop(2), augment.MixUp()))
    plain = _gradient(compile_program(program()))
    given = model([augment.RandomCrop(2), augment.MixUp()], ("N", 3, 9, 8), COLOUR)
    result = run(given, batch()["image"], batch()["label"], seed=7, step=0)
    parts = [
        share[i] * plain(image=result.images[i : i + 1], label=target[i : i + 1])
        for target, share in zip(result.targets, result.shares, strict=True)
        for i in range(6)
    ]
    np.testing.assert_allclose(_gradient(compiled)(), np.sum(parts, axis=0) / 6, atol=1e-6)


def test_accuracy_counts_the_target_with_the_larger_share() -> None:
    compiled = compile_program(program(augment.MixUp()))
    outputs = _runner(compiled.graphs["train.onnx"])({**batch(), **compiled.state})
    result = run(model([augment.MixUp()], ("N", 3, 9, 8), COLOUR), batch()["image"], batch()["label"], 7, 0)
    infer = _runner(compiled.graphs["infer.onnx"])({"image": result.images})["probabilities"]
    assert outputs["metrics/accuracy/sum"] == (infer.argmax(1) == result.seen).sum()


def test_class_weights_and_ignored_labels_count_by_their_shares() -> None:
    loss = losses.SoftmaxCrossEntropy(class_weights=(1.0, 2.0, 0.5, 0.0, 1.5), ignore_index=4)
    compiled = compile_program(program(augment.MixUp(), loss=loss, accumulate=2))
    outputs = _runner(compiled.graphs["train.onnx"])({**batch(), **compiled.state})
    result = run(model([augment.MixUp()], ("N", 3, 9, 8), COLOUR), batch()["image"], batch()["label"], 7, 0)
    weights = np.array([1.0, 2.0, 0.5, 0.0, 0.0])
    counted = sum((s * weights[t]).sum() for t, s in zip(result.targets, result.shares, strict=True))
    assert outputs["metrics/loss/count"] == pytest.approx(counted, rel=1e-6)


def test_a_step_depends_on_seed_and_step_alone() -> None:
    compiled = compile_program(program(*USUAL))
    train = _runner(compiled.graphs["train.onnx"])
    loss = [
        float(train({**batch(seed=np.array(seed)), **compiled.state, "step": np.array(step)})["loss"])
        for seed, step in ((7, 0), (7, 0), (7, 1), (8, 0))
    ]
    assert loss[0] == loss[1]
    assert len(set(loss)) == 3


def test_a_further_augmentation_leaves_the_others_alone() -> None:
    """A node's numbers depend on its own kind and on how many of it there are before."""
    image, label = batch()["image"], batch()["label"]
    few = run(model([augment.RandomCrop(2)], image.shape), image, label)
    more = run(
        model([augment.RandomErasing(), augment.RandomCrop(2), augment.RandomCrop(2)], image.shape),
        image,
        label,
    )
    first, second = more.numbers["augment/crop/draws"], more.numbers["augment/crop_2/draws"]
    np.testing.assert_array_equal(few.numbers["augment/crop/draws"], first)
    assert np.all(first != second)


# Runtimes.


@pytest.mark.parametrize("count", [6, 1])
@pytest.mark.parametrize("augmentation", ALL, ids=lambda a: a.kind)
def test_every_runtime_makes_the_same_of_a_batch(augmentation: augment.Augmentation, count: int) -> None:
    given = model([augmentation], ("N", 3, 9, 8), COLOUR)
    image, label = batch(count)["image"], batch(count)["label"]
    first, *others = (run(given, image, label, 2**31 - 1, 2**24 + 1, on=runtime) for runtime in PRESENT)
    exact = augmentation in ALL[:6]
    for other in others:
        for name, numbers in first.numbers.items():
            np.testing.assert_array_equal(other.numbers[name], numbers)
        np.testing.assert_array_equal(other.targets, first.targets)
        np.testing.assert_array_equal(other.seen, first.seen)
        np.testing.assert_allclose(other.shares, first.shares, atol=1e-6)
        if exact:
            np.testing.assert_allclose(
                other.images, first.images, atol=1e-6 if "random" in str(augmentation) else 0
            )
        else:
            np.testing.assert_allclose(other.images, first.images, atol=2e-5)


USUAL: list[augment.Augmentation] = [
    augment.RandomCrop(2),
    augment.RandomHorizontalFlip(),
    augment.MixUp(0.2),
]


@pytest.mark.parametrize(
    "augmentations", [USUAL, pytest.param(ALL, marks=pytest.mark.slow)], ids=["usual", "all"]
)
def test_verify_agrees_on_an_augmented_bundle(
    augmentations: list[augment.Augmentation], tmp_path: Path
) -> None:
    compiled = compile_program(program(*augmentations, optimizer=optim.Adam()))
    bundle = write_bundle(tmp_path / "augmented.bundle", compiled.manifest, compiled.graphs, compiled.state)
    report = verify(bundle.path)
    assert {r.name for r in report.runtimes} == {r.name for r in PRESENT}
    assert report.ok, report


# What ONNX Runtime's CUDA provider has a kernel of at opset 18, for the types used here: see
# docs/OperatorKernels.md of its repository.
ON_CUDA = {
    "Abs", "Add", "And", "Cast", "Concat", "Constant", "Cos", "Div", "Equal", "Exp", "Expand", "Floor",
    "Gather", "Gemm", "Greater", "GreaterOrEqual", "Identity", "Less", "Max", "Min", "Mod", "Mul", "Range",
    "ReduceMax", "ReduceMean", "ReduceMin", "ReduceSum", "Reshape", "Round", "Shape", "Sin", "Slice", "Split",
    "Sqrt", "Squeeze", "Sub", "Sum", "Transpose", "Unsqueeze", "Where",
}  # fmt: skip


def test_only_standard_operators_that_cuda_has() -> None:
    for dims, target in (
        (("N", 3, 9, 8), LABEL),
        (("N", 3, 9, 8), TargetSpec("m", "class", "int64", ("N", 9, 8))),
    ):
        kinds = [a for a in ALL if target is LABEL or "MixUp" not in str(a)]
        flat = inliner.inline_local_functions(model(kinds, dims, COLOUR, target))
        assert {node.domain for node in flat.graph.node} == {""}
        assert {node.op_type for node in flat.graph.node} <= ON_CUDA


# Statistics of the numbers, as narrow matrices have them. Scores are in standard deviations.

ROWS, COLUMNS, STEPS = 64, 5, 3000


def test_a_batch_draws_the_generators_numbers() -> None:
    feeds = batch()
    result = run(model([augment.CutMix()], ("N", 3, 9, 8)), feeds["image"], feeds["label"], 11, 13)
    (numbers,) = result.numbers.values()
    stream = zlib.crc32(b"augment/cutmix") & 0x7FFFFFFF
    np.testing.assert_array_equal(numbers, ((drawn(11, 13, stream, 6, 5) + 0.5) / 2**15).astype(np.float32))


@pytest.fixture(scope="module")
def narrow() -> Array:
    """Numbers of 64 examples, five for each, over many steps."""
    return np.stack([drawn(3, step, 77, ROWS, COLUMNS) for step in range(STEPS)])


def test_numbers_are_uniform(narrow: Array) -> None:
    assert abs(chi_square(np.bincount(narrow.ravel() >> 5, minlength=1024))) < 4
    for column in range(COLUMNS):
        assert abs(chi_square(np.bincount(narrow[..., column].ravel() >> 5, minlength=1024))) < 4
    for row in (0, 1, 63):
        assert abs(chi_square(np.bincount(narrow[:, row].ravel() >> 7, minlength=256))) < 4


@pytest.mark.parametrize("between", ["examples", "numbers", "steps", "seeds", "nodes", "far examples"])
def test_numbers_are_independent(narrow: Array, between: str) -> None:
    n = narrow
    choices: dict[str, Callable[[], tuple[Array, Array]]] = {
        "examples": lambda: (n[:, :-1], n[:, 1:]),
        "far examples": lambda: (n[:, :-32], n[:, 32:]),
        "numbers": lambda: (n[..., :-1], n[..., 1:]),
        "steps": lambda: (n[:-1], n[1:]),
        "seeds": lambda: (n, np.stack([drawn(4, step, 77, ROWS, COLUMNS) for step in range(STEPS)])),
        "nodes": lambda: (n, np.stack([drawn(3, step, 78, ROWS, COLUMNS) for step in range(STEPS)])),
    }
    this, other = choices[between]()
    pairs = (this.ravel() >> 10 << 5) + (other.ravel() >> 10)
    assert abs(chi_square(np.bincount(pairs, minlength=1024))) < 4


def test_of_several_outputs_each_target_is_mixed_as_it_can_be() -> None:
    """Classes by their shares, pixels by the rectangle: both losses are finite and count each target once."""

    def two(x: nn.Value) -> dict[str, nn.Value]:
        y = nn.Conv2d(4, 3, padding="same", activation="relu")(x)
        return {"kind": nn.Dense(5)(nn.GlobalAvgPool2d()(y)), "mask": nn.Conv2d(3, 1)(y)}

    compiled = compile_program(
        program(
            augment.RandomCrop(2),
            augment.CutMix(),
            model=two,
            loss={"kind": losses.SoftmaxCrossEntropy(), "mask": losses.PixelCrossEntropy()},
            metrics={"kind": [metrics.Accuracy()], "mask": [metrics.Accuracy()]},
        )
    )
    labels = {"label/kind": np.arange(6) % 5, "label/mask": np.zeros((6, 9, 8), np.int64)}
    outputs = _runner(compiled.graphs["train.onnx"])({**batch(), **labels, **compiled.state})
    assert np.isfinite(outputs["loss"])
    assert outputs["metrics/kind_loss/count"] == outputs["metrics/kind_accuracy/count"] == 6
    assert outputs["metrics/mask_loss/count"] == outputs["metrics/mask_accuracy/count"] == 6 * 72
