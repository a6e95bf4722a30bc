"""What forms share between operators, and what a batch in chunks must not do."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import onnxruntime as ort
import pytest

from cnnc import Program, Tensor, augment, losses, metrics, nn, optim
from cnnc.bundle import Bundle, write_bundle
from cnnc.compiler import compile_program
from cnnc.errors import UnsupportedError
from cnnc.layout import legal_forms
from cnnc.layout.step import fixed_step, planned_step
from cnnc.tuner.candidates import Candidate, groups_of
from cnnc.tuner.contestant import Array, Contestant, Refused, check, feeds_of, moved
from cnnc.tuner.cuts import Cut

BATCH = 16


def built(folder: Path, model: Callable[[nn.Value], nn.Value], **more: Any) -> Bundle:
    program = Program(
        input=Tensor("image", ("N", 8, 8, 8)),
        model=model,
        loss=losses.SoftmaxCrossEntropy(),
        optimizer=optim.SGD(0.1, momentum=0.9),
        metrics=[metrics.Accuracy()],
        **more,
    )
    compiled = compile_program(program)
    return write_bundle(folder / "bundle", compiled.manifest, compiled.graphs, compiled.state)


def results(bundle: Bundle, plan: dict[str, str], chunks: int = 1) -> dict[str, Array]:
    step = fixed_step(bundle, BATCH, chunks)
    model = planned_step(step, plan, watched=Cut((step,)).gradients)
    feeds = moved(feeds_of(bundle, BATCH), bundle)
    return Contestant.load([model], bundle, feeds, 1, {}).results(Cut((step,)).gradients)


def three_into_one(x: nn.Value) -> nn.Value:
    """The gradient of one normalisation, with its scale yet to be applied, goes to three convolutions."""
    y = sum((nn.Conv2d(8, 3, padding="same")(x) for _ in range(2)), nn.Conv2d(8, 3, padding="same")(x))
    return nn.Dense(4)(nn.GlobalAvgPool2d()(nn.ReLU()(nn.BatchNorm2d()(y))))


def test_a_transform_is_shared_by_those_that_lack_the_same_scale_alone(tmp_path: Path) -> None:
    bundle = built(tmp_path, three_into_one)
    step = fixed_step(bundle, BATCH)
    plan = {
        str(node.name): next(form.name for form in legal_forms(node) if form.name.startswith("HWNC"))
        for node in step
        if any(form.name.startswith("HWNC") for form in legal_forms(node))
    }
    assert len(plan) >= 6
    feeds, right = moved(feeds_of(bundle, BATCH), bundle), results(bundle, {})
    for left_out in (None, *plan):
        check(results(bundle, {node: form for node, form in plan.items() if node != left_out}), right, feeds)


@pytest.mark.parametrize(
    ("layer", "form"),
    [
        (lambda x: nn.Conv2d(8, 3, stride=2)(x), "runs"),
        (lambda x: nn.Conv2d(8, 3, stride=2, padding=1)(x), "runs"),
        (lambda x: nn.Conv2d(8, 1, stride=2)(x), "runs"),
        (lambda x: nn.Conv2d(8, 3)(nn.Conv2d(3, 1)(x)), "columns_of_image"),
    ],
)
def test_a_leaner_form_makes_again_what_the_other_keeps(
    tmp_path: Path, layer: Callable[[nn.Value], nn.Value], form: str
) -> None:
    """Neither merged with the columns of the forward pass nor made early: it waits for dy."""
    bundle = built(tmp_path, lambda x: nn.Dense(4)(nn.GlobalAvgPool2d()(layer(x))))
    step = fixed_step(bundle, BATCH)
    group = next(group for group in groups_of(step) if form in group.in_layout("HWNC").name)
    kept = group.in_layout("HWNC")
    lean = group.leaner(kept)
    assert lean == group.called(kept.name.replace(f"{form}_weight", f"{form}_again_weight")) != kept
    assert group.leaner(group.plain) == group.plain
    feeds, right, optimised = moved(feeds_of(bundle, BATCH), bundle), results(bundle, {}), tmp_path / "o.onnx"
    gathers = []
    for variant in (kept, lean):
        plan = Candidate((group,), (variant,)).plan
        assert list(plan.values()) == [form for form in variant.forms if form]
        check(results(bundle, plan), right, feeds)
        options = ort.SessionOptions()
        options.optimized_model_filepath, options.log_severity_level = str(optimised), 3
        ort.InferenceSession(planned_step(step, plan), options, providers=["CPUExecutionProvider"])
        gathers.append([node.op_type for node in onnx.load(optimised).graph.node].count("Gather"))
    assert gathers[1] == gathers[0] + 2, "the columns, and the element of dy that they wait for"


def plain(x: nn.Value) -> nn.Value:
    return nn.Dense(4)(nn.Flatten()(nn.MaxPool2d(2)(nn.ReLU()(nn.Conv2d(8, 3)(x)))))


def test_chunks_are_the_same_step(tmp_path: Path) -> None:
    bundle = built(tmp_path, plain)
    feeds, right = moved(feeds_of(bundle, BATCH), bundle), results(bundle, {})
    for chunks in (2, 4):
        check(results(bundle, {}, chunks), right, feeds)
    wrong = dict(right)
    wrong["grad/0"] = right["grad/0"] * 1.2
    with pytest.raises(Refused, match="its 'grad/0' differs"):
        check(wrong, right, feeds)


@pytest.mark.parametrize(
    ("model", "more", "reason"),
    [
        (three_into_one, {}, "batch normalisation"),
        (lambda x: plain(nn.Dropout(0.5)(x)), {}, "dropout"),
        (plain, {"augment": [augment.RandomHorizontalFlip()]}, "augmentation"),
    ],
)
def test_examples_that_meet_can_t_go_in_chunks(
    tmp_path: Path, model: Callable[[nn.Value], nn.Value], more: dict[str, Any], reason: str
) -> None:
    with pytest.raises(UnsupportedError, match=reason):
        fixed_step(built(tmp_path, model, **more), BATCH, 2)


def test_each_chunk_s_convolution_is_chosen_with_its_own_gradients(tmp_path: Path) -> None:
    bundle = built(tmp_path, plain)
    whole, parts = (groups_of(fixed_step(bundle, BATCH, chunks)) for chunks in (1, 4))
    one, four = (next(group for group in groups if "conv1" in group.name) for groups in (whole, parts))
    assert (len(one.members), len(four.members)) == (1, 4)
    assert [v.name for v in one.variants] == [v.name for v in four.variants]
