"""Mixup and cutmix: what they mix, by which shares, and what loss and metrics make of it."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import onnx_ir as ir
import pytest
from augmented import PLAIN, Array, model, once, run, seen, stored
from test_losses import CASES
from traced import emitted, run_reference

from cnnc import augment
from cnnc.augment.mixing import beta_quantiles
from cnnc.bundle import TargetSpec
from cnnc.ir import Builder
from cnnc.losses import Loss

N = 24


def partner(number: float, count: int) -> int:
    """How far round the batch the partner is."""
    return (math.floor(number * (count - 1)) + 1) % count


@pytest.mark.parametrize("p", [1.0, 0.4])
@pytest.mark.parametrize("count", [N, 2, 1])
def test_mixup(count: int, p: float) -> None:
    x = seen(stored(count), PLAIN, np.float64)
    result = once(augment.MixUp(0.4, p), x)
    whether, level, offset = result.numbers["augment/mixup/draws"].astype(float).T
    share = np.where(whether < p, beta_quantiles(0.4)[np.floor(level * 1024).astype(int)], 1.0)
    order = (np.arange(count) + partner(offset[0], count)) % count
    assert count == 1 or np.all(order != np.arange(count))
    np.testing.assert_allclose(result.shares, [share, 1 - share], atol=1e-7)
    np.testing.assert_array_equal(result.targets, [np.arange(count), order])
    np.testing.assert_array_equal(result.seen, np.where(share < 0.5, order, np.arange(count)))
    weight = result.shares[0][:, None, None, None]
    np.testing.assert_allclose(result.images, weight * x + (1 - weight) * x[order], atol=1e-12)


@pytest.mark.parametrize("p", [1.0, 0.4])
def test_cutmix(p: float) -> None:
    """torchvision's rectangle: halves of its sides are rounded down, its centre is any pixel."""
    x = seen(stored(N, height=20, width=31), PLAIN)
    result = once(augment.CutMix(1.0, p), x)
    numbers = result.numbers["augment/cutmix/draws"].astype(float)
    order = (np.arange(N) + partner(numbers[0, 4], N)) % N
    np.testing.assert_array_equal(result.targets, [np.arange(N), order])
    for i, (whether, level, v, u, _) in enumerate(numbers):
        side = math.sqrt(1 - beta_quantiles(1.0)[math.floor(level * 1024)])
        edges = []
        for number, size in ((v, 20), (u, 31)):
            centre, half = math.floor(number * size), math.floor(size * side / 2)
            edges.append(slice(max(centre - half, 0), min(centre + half, size)))
        mixed = x[i].copy()
        if whether < p:
            mixed[:, *edges] = x[order[i]][:, *edges]
        np.testing.assert_array_equal(result.images[i], mixed)
        cut = np.ones((20, 31))[*edges].sum() / 620 if whether < p else 0.0
        assert result.shares[0][i] == pytest.approx(1 - cut, abs=1e-6)
        assert result.shares[1][i] == pytest.approx(cut, abs=1e-6)


def test_cutmix_of_a_batch_of_one_changes_nothing() -> None:
    x = seen(stored(1), PLAIN)
    result = once(augment.CutMix(), x)
    np.testing.assert_array_equal(result.images, x)
    assert sum(result.shares) == 1


def test_inputs_that_are_no_images_can_be_mixed() -> None:
    x = np.random.default_rng(1).standard_normal((N, 7)).astype(np.float32)
    result = once(augment.MixUp(), x)
    weight, order = result.shares[0][:, None], result.targets[1]
    np.testing.assert_allclose(result.images, weight * x + (1 - weight) * x[order], atol=1e-6)


def test_a_choice_of_mixtures() -> None:
    x = seen(stored(64), PLAIN)
    mixing = augment.RandomChoice([augment.MixUp(), augment.CutMix(), augment.RandomHorizontalFlip(1.0)])
    result = once(mixing, x)
    chosen = np.floor(result.numbers["augment/choice/draws"][:, 0] * 3)
    assert set(chosen) == {0, 1, 2}
    _, order = result.targets
    np.testing.assert_allclose(sum(result.shares), 1, atol=1e-6)
    np.testing.assert_array_equal(result.images[chosen == 2], x[chosen == 2][..., ::-1])
    np.testing.assert_array_equal(result.shares[0][chosen == 2], 1)
    pixelwise = (result.images == x) | (result.images == x[order])
    assert pixelwise[chosen == 1].all()
    weight = result.shares[0][:, None, None, None]
    mixed = weight * x + (1 - weight) * x[order]
    np.testing.assert_allclose(result.images[chosen == 0], mixed[chosen == 0], atol=1e-6)


def test_a_choice_moves_labels_with_the_chosen_images() -> None:
    labels = np.random.default_rng(4).integers(0, 5, (64, 9, 8))
    x = np.repeat(labels[:, None], 3, axis=1).astype(np.float32)
    spec = TargetSpec("label", "class", "int64", ("N", 9, 8))
    kinds = [augment.RandomHorizontalFlip(1.0), augment.RandomVerticalFlip(1.0), augment.RandomErasing(0.0)]
    result = once(augment.RandomChoice(kinds), x, labels, spec=spec)
    (target,) = result.targets
    assert not result.shares
    np.testing.assert_array_equal(target, result.images[:, 0])
    same = (target == labels).all((1, 2))
    assert 0 < same.sum() < 64


def test_mixing_twice_has_four_shares() -> None:
    x = seen(stored(N), PLAIN)
    given = model([augment.MixUp(), augment.MixUp(0.3)], ("N", 3, 9, 8))
    result = run(given, x, np.arange(N))
    assert len(result.targets) == len(result.shares) == 4
    np.testing.assert_allclose(sum(result.shares), 1, atol=1e-6)
    expected = sum(
        share[:, None, None, None] * x[target]
        for share, target in zip(result.shares, result.targets, strict=True)
    )
    np.testing.assert_allclose(result.images, expected, atol=1e-5)


# The distribution of the shares.


@pytest.mark.parametrize(
    ("alpha", "distribution"),
    [
        (1.0, lambda x: x),
        (0.5, lambda x: 2 / np.pi * np.arcsin(np.sqrt(x))),
        (2.0, lambda x: 3 * x**2 - 2 * x**3),
        (3.0, lambda x: 10 * x**3 - 15 * x**4 + 6 * x**5),
    ],
)
def test_quantiles_are_those_of_the_beta_distribution(
    alpha: float, distribution: Callable[[Array], Array]
) -> None:
    levels = (np.arange(1024) + 0.5) / 1024
    np.testing.assert_allclose(distribution(beta_quantiles(alpha)), levels, atol=1e-5)


@pytest.mark.parametrize("alpha", [0.1, 0.2, 0.8, 4.0])
def test_shares_have_the_right_variance(alpha: float) -> None:
    """That of Beta(α, α) is 1 / (8α + 4)."""
    shares = beta_quantiles(alpha)
    assert np.all(np.diff(shares) >= 0)
    assert shares.mean() == pytest.approx(0.5, abs=1e-9)
    assert shares.var() == pytest.approx(1 / (8 * alpha + 4), rel=2e-3)


# Losses.


@pytest.mark.parametrize(
    ("loss", "output", "target", "expected", "counted"), CASES, ids=lambda v: str(v)[:60]
)
def test_the_loss_of_a_mixture_is_that_of_its_targets_by_their_shares(
    loss: Loss, output: Array, target: Array, expected: object, counted: object
) -> None:
    """Against the losses of each example alone, for two targets and random shares."""
    others = np.roll(target, 1, axis=0)
    share = np.random.default_rng(5).uniform(0, 1, len(output))

    def mixture(
        builder: Builder, output: ir.Value, one: ir.Value, two: ir.Value, share: ir.Value
    ) -> tuple[ir.Value, ir.Value]:
        left = builder.op("Sub", 1.0, share)
        return loss.emit_mixture(builder, output, [(one, share), (two, left)])

    def cast(array: Array) -> Array:
        return array if array.dtype == np.int64 else array.astype(np.float64)

    feeds = {"output": output.astype(np.float64), "one": cast(target), "two": cast(others), "share": share}
    total, count = emitted(mixture, feeds, run_reference)
    sums, counts = 0.0, 0.0
    for i in range(len(output)):
        for each, part in ((target, share[i]), (others, 1 - share[i])):
            alone = {"output": feeds["output"][i : i + 1], "target": cast(each[i : i + 1])}
            one, weight = emitted(loss.emit, alone, run_reference)
            sums, counts = sums + part * one, counts + part * weight
    assert total == pytest.approx(sums, rel=1e-9, abs=1e-12)
    assert count == pytest.approx(counts, rel=1e-9)
