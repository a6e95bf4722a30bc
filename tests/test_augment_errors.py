"""Augmentations that can't be, in a graph file and on the command line."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from command_line import call

from cnnc import Program, Tensor, augment, losses, metrics, nn, optim
from cnnc.augment.named import parse
from cnnc.errors import GraphFileError, UsageError


def program_of(*augmentations: augment.Augmentation, **fields: Any) -> Program:
    return Program(
        **{
            "input": Tensor("image", ("N", 3, 9, 8)),
            "model": nn.Sequential(nn.Flatten(), nn.Dense(5)),
            "loss": losses.SoftmaxCrossEntropy(),
            "optimizer": optim.Adam(),
            "metrics": [metrics.Accuracy()],
            "augment": augmentations,
            **fields,
        }
    )


WRONG: dict[str, tuple[Callable[[], Any], str]] = {
    "not a list": (lambda: program_of(augment=augment.MixUp()), "augment must be a list"),
    "a class": (lambda: program_of(augment.MixUp), r"Write MixUp\(…\)"),  # type: ignore[arg-type]  # wrong on purpose
    "no probability": (lambda: augment.RandomHorizontalFlip(1.5), r"p must be in \[0, 1\]"),
    "padding": (lambda: augment.RandomCrop(-1), "padding must be at least 0"),
    "torchvision's size": (
        lambda: program_of(augment.RandomCrop(32)).trace(),
        "a padding of .* too much for",
    ),
    "mode": (lambda: augment.RandomCrop(4, "symmetrical"), "no padding_mode 'symmetrical'"),  # type: ignore[arg-type]  # wrong on purpose
    "range": (lambda: augment.RandomErasing(scale=(0.5, 0.1)), "low ≤ high"),
    "hue": (lambda: augment.ColorJitter(hue=0.7), "hue"),
    "nothing": (lambda: augment.ColorJitter(), "it changes nothing"),
    "alpha": (lambda: augment.MixUp(0.0), "alpha must be a number above 0"),
    "empty choice": (lambda: augment.RandomChoice([]), "a list of augmentations"),
    "value": (lambda: augment.RandomErasing(value="mean"), "a number or 'random'"),
    "grey": (
        lambda: program_of(augment.ColorJitter(hue=0.1), input=Tensor("image", ("N", 1, 9, 8))).trace(),
        "three colours",
    ),
    "no images": (
        lambda: program_of(
            augment.RandomCrop(1), input=Tensor("x", ("N", 9)), model=nn.Sequential(nn.Dense(5))
        ).trace(),
        r"takes images \[N, C, H, W\]",
    ),
    "targets of another size": (
        lambda: program_of(
            augment.RandomHorizontalFlip(),
            model=nn.Sequential(nn.Conv2d(5, 3)),
            loss=losses.PixelCrossEntropy(),
            metrics=[],
        ).trace(),
        r"can't move the targets along: they are \[N, 7, 6\]",
    ),
}


@pytest.mark.parametrize(("make", "said"), WRONG.values(), ids=WRONG)
def test_wrong_augmentations(make: Callable[[], object], said: str) -> None:
    with pytest.raises(GraphFileError) as caught:
        make()
    assert re.search(said, f"{caught.value.what} {caught.value.hint}")
    assert "test_augment_errors.py" in caught.value.where


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("flip", augment.RandomHorizontalFlip()),
        ("crop:4", augment.RandomCrop(4)),
        ("crop:2,padding_mode=reflect", augment.RandomCrop(2, "reflect")),
        ("affine:10,scale=0.9/1.1", augment.RandomAffine(10, scale=(0.9, 1.1))),
        ("jitter:0.2,0.2,hue=0.1", augment.ColorJitter(0.2, 0.2, hue=0.1)),
        ("mixup:0.2", augment.MixUp(0.2)),
        ("erase:value=random", augment.RandomErasing(value="random")),
    ],
)
def test_names_of_the_command_line(text: str, expected: augment.Augmentation) -> None:
    assert parse(text) == expected


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("flop", "Did you mean 'flip'?"),
        ("crop:pading=4", "Did you mean 'padding'?"),
        ("crop:4,padding=4", "'padding' twice"),
        ("flip:0.5,1", "no setting '2'"),
        ("crop:four", "padding must be an integer"),
        ("mixup:-1", "above 0"),
    ],
)
def test_wrong_names_of_the_command_line(text: str, said: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse(text)
    assert said in f"{caught.value.what} {caught.value.hint}"


def test_a_graph_file_says_itself_what_is_augmented(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = call("build", "digits", "--augment", "flip")
    assert (result.status, result.out) == (2, "")
    assert "digits is a graph file, which says itself how it is trained" in result.err
    assert not list(tmp_path.iterdir())
