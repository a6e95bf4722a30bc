"""Each augmentation against its formula in NumPy, given the numbers that it drew."""

from __future__ import annotations

import colorsys
import math
from typing import Literal

import numpy as np
import pytest
from augmented import COLOUR, PLAIN, Array, once, seen, stored

from cnnc import augment
from cnnc.bundle import Preprocessing, TargetSpec

N = 24
BLACK = -np.array(COLOUR.mean) / np.array(COLOUR.std)


def draws(numbers: dict[str, Array], of: str) -> Array:
    return numbers[f"augment/{of}/draws"]


# Flips and shifts are exact.


@pytest.mark.parametrize(
    ("augmentation", "axis"),
    [(augment.RandomHorizontalFlip(0.3), -1), (augment.RandomVerticalFlip(0.7), -2)],
    ids=["horizontal", "vertical"],
)
def test_flip(augmentation: augment.RandomHorizontalFlip | augment.RandomVerticalFlip, axis: int) -> None:
    x = seen(stored(N), COLOUR)
    result = once(augmentation, x, preprocessing=COLOUR)
    flipped = draws(result.numbers, augmentation.kind)[:, 0] < augmentation.p
    expected = np.where(flipped[:, None, None, None], np.flip(x, axis), x)
    np.testing.assert_array_equal(result.images, expected)
    assert 0 < flipped.sum() < N
    np.testing.assert_array_equal(result.targets, [np.arange(N)])


@pytest.mark.parametrize("p", [0.0, 1.0])
def test_a_flip_never_or_always(p: float) -> None:
    x = seen(stored(N), PLAIN)
    expected = x[..., ::-1] if p else x
    np.testing.assert_array_equal(once(augment.RandomHorizontalFlip(p), x).images, expected)


@pytest.mark.parametrize(
    ("crop", "mode"),
    [
        (augment.RandomCrop(), "constant"),
        (augment.RandomCrop((2, 3), fill=1.0), "constant"),
        (augment.RandomCrop(7, "edge"), "edge"),
        (augment.RandomCrop(7, "reflect"), "reflect"),
        (augment.RandomCrop((0, 5)), "constant"),
    ],
    ids=str,
)
def test_crop(crop: augment.RandomCrop, mode: Literal["constant", "edge", "reflect"]) -> None:
    x = seen(stored(N), COLOUR)
    result = once(crop, x, preprocessing=COLOUR)
    assert isinstance(crop.padding, tuple)
    down, across = crop.padding
    fill = (crop.fill - np.array(COLOUR.mean)) / np.array(COLOUR.std)
    for image, original, (u, v) in zip(result.images, x, draws(result.numbers, "crop"), strict=True):
        pads = ((0, 0), (down, down), (across, across))
        padded = np.pad(original, pads, mode=mode)
        if mode == "constant":
            inside = np.pad(np.ones_like(original), pads)
            padded = np.where(inside == 1, padded, fill[:, None, None]).astype(np.float32)
        top, left = math.floor(u * (2 * down + 1)), math.floor(v * (2 * across + 1))
        np.testing.assert_array_equal(image, padded[:, top : top + 9, left : left + 8])


# Maps between pixels, in float64.


def bilinear(image: Array, rows: Array, columns: Array, fill: Array) -> Array:
    """Each channel at (row, column), the fill beyond the outermost pixels."""
    padded = np.pad(image - fill[:, None, None], ((0, 0), (2, 2), (2, 2)))
    down = np.clip(rows + 2, 0, padded.shape[1] - 1 - 1e-9)
    across = np.clip(columns + 2, 0, padded.shape[2] - 1 - 1e-9)
    i, j = np.floor(down).astype(int), np.floor(across).astype(int)
    f, g = down - i, across - j
    upper = (1 - g) * padded[:, i, j] + g * padded[:, i, j + 1]
    lower = (1 - g) * padded[:, i + 1, j] + g * padded[:, i + 1, j + 1]
    return (1 - f) * upper + f * lower + fill[:, None, None]


def affine_places(numbers: Array, wish: augment.RandomAffine, height: int, width: int) -> tuple[Array, Array]:
    """By the inverse of the matrix shift · rotation · scale · shear about the centre, as torchvision's."""
    between = [
        low + (high - low) * u for u, (low, high) in zip(numbers, _limits(wish, height, width), strict=True)
    ]
    ty, tx, angle, scale, slant = between
    rotation = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    shear = np.array([[1.0, -math.tan(slant)], [0.0, 1.0]])
    inverse = np.linalg.inv(scale * rotation @ shear)  # of points (x, y)
    y, x = np.meshgrid(
        np.arange(height) - (height - 1) / 2, np.arange(width) - (width - 1) / 2, indexing="ij"
    )
    column, row = np.einsum("ij,jhw->ihw", inverse, np.stack([x - tx, y - ty]))
    return row + (height - 1) / 2, column + (width - 1) / 2


def _limits(wish: augment.RandomAffine, height: int, width: int) -> list[tuple[float, float]]:
    turn, slant = math.radians(wish.degrees), math.radians(wish.shear)
    shift = wish.translate * height, wish.translate * width
    return [(-shift[0], shift[0]), (-shift[1], shift[1]), (-turn, turn), wish.scale, (-slant, slant)]


@pytest.mark.parametrize(
    "wish",
    [
        augment.RandomAffine(180),
        augment.RandomAffine(0, translate=0.4),
        augment.RandomAffine(20, 0.1, (0.5, 1.5), 15, fill=0.7),
        augment.RandomRotation(30, fill=0.2),
    ],
    ids=str,
)
def test_affine(wish: augment.RandomAffine | augment.RandomRotation) -> None:
    x = seen(stored(N), COLOUR, np.float64)
    result = once(wish, x, preprocessing=COLOUR)
    fill = (wish.fill - np.array(COLOUR.mean)) / np.array(COLOUR.std)
    whole = wish if isinstance(wish, augment.RandomAffine) else augment.RandomAffine(wish.degrees)
    for image, original, numbers in zip(result.images, x, draws(result.numbers, wish.kind), strict=True):
        rows, columns = affine_places(numbers.astype(float), whole, 9, 8)
        np.testing.assert_allclose(image, bilinear(original, rows, columns, fill), atol=1e-9)


def test_an_affine_map_that_does_nothing_is_exact() -> None:
    x = seen(stored(4), COLOUR)
    np.testing.assert_array_equal(once(augment.RandomAffine(0), x, preprocessing=COLOUR).images, x)


def test_resized_crop() -> None:
    x, wish = seen(stored(N), PLAIN, np.float64), augment.RandomResizedCrop((0.1, 1.0), (0.5, 2.0))
    result = once(wish, x)
    for image, original, (a, r, u, v) in zip(
        result.images, x, draws(result.numbers, "resized_crop").astype(float), strict=True
    ):
        area, ratio = 0.1 + 0.9 * a, math.exp(math.log(0.5) + math.log(4) * r)
        ratio = min(max(ratio, area), 1 / area)
        tall, wide = math.sqrt(area / ratio), math.sqrt(area * ratio)
        assert max(tall, wide) <= 1 + 1e-12
        rows = np.clip((np.arange(9) + 0.5) * tall + u * (1 - tall) * 9 - 0.5, 0, 8)
        columns = np.clip((np.arange(8) + 0.5) * wide + v * (1 - wide) * 8 - 0.5, 0, 7)
        rows, columns = np.meshgrid(rows, columns, indexing="ij")
        np.testing.assert_allclose(image, bilinear(original, rows, columns, np.zeros(3)), atol=1e-9)


# Targets that are images move along.

PIXELS = TargetSpec("label", "class", "int64", ("N", 9, 8), ignored=255)


@pytest.mark.parametrize("name", ["RandomHorizontalFlip", "RandomVerticalFlip", "RandomCrop", "CutMix"])
def test_pixel_labels_go_where_their_pixels_go(name: str) -> None:
    labels = np.random.default_rng(4).integers(0, 5, (N, 9, 8))
    x = np.repeat(labels[:, None], 3, axis=1).astype(np.float32)
    result = once(getattr(augment, name)(), x, labels, spec=PIXELS)
    (target,) = result.targets
    assert target.dtype == np.int64
    assert np.any(target != labels)
    assert np.any(target == 255) == (name == "RandomCrop")
    np.testing.assert_array_equal(np.where(target == 255, 0, target), result.images[:, 0])


def test_labels_are_read_at_the_nearest_pixel() -> None:
    labels = np.random.default_rng(4).integers(0, 5, (N, 9, 8))
    wish = augment.RandomAffine(40, 0.2)
    result = once(wish, np.zeros((N, 3, 9, 8)), labels, spec=PIXELS)
    padded = np.pad(labels, ((0, 0), (20, 20), (20, 20)), constant_values=255)
    for i, numbers in enumerate(draws(result.numbers, "affine").astype(float)):
        rows, columns = (np.round(places).astype(int) + 20 for places in affine_places(numbers, wish, 9, 8))
        np.testing.assert_array_equal(result.targets[0][i], padded[i][rows, columns])


def test_images_to_be_restored_move_like_the_input() -> None:
    x = seen(stored(N), PLAIN)
    spec = TargetSpec("target", "value", "float32", ("N", 3, 9, 8))
    result = once(augment.RandomRotation(30), x, x, spec=spec)
    np.testing.assert_allclose(result.targets[0], result.images, atol=1e-6)


# Colour, on [0, 1].


def jitter(image: Array, brightness: float, contrast: float, saturation: float, hue: float) -> Array:
    """torchvision's adjust_brightness, …_contrast, …_saturation and …_hue, one after another."""
    weights = np.array([0.2989, 0.587, 0.114])[:, None, None]
    image = np.clip(image * brightness, 0, 1)
    image = np.clip(contrast * image + (1 - contrast) * (weights * image).sum(0).mean(), 0, 1)
    image = np.clip(saturation * image + (1 - saturation) * (weights * image).sum(0), 0, 1)
    turned = np.empty_like(image)
    for place in np.ndindex(*image.shape[1:]):
        h, s, v = colorsys.rgb_to_hsv(*image[:, *place])
        turned[:, *place] = colorsys.hsv_to_rgb((h + hue) % 1.0, s, v)
    return turned


@pytest.mark.parametrize("preprocessing", [PLAIN, COLOUR], ids=["plain", "normalised"])
def test_colour_jitter(preprocessing: Preprocessing) -> None:
    images = stored(6)
    images[:, :, 0, 0] = [128, 128, 128]  # grey has no hue
    images[:, :, 0, 1] = [0, 0, 0]
    result = once(
        augment.ColorJitter(0.4, (0.5, 2.0), 0.8, 0.5),
        seen(images, preprocessing, np.float64),
        preprocessing=preprocessing,
    )
    low, high = np.array([0.6, 0.5, 0.2, -0.5]), np.array([1.4, 2.0, 1.8, 0.5])
    for image, original, numbers in zip(
        result.images, images / 255, draws(result.numbers, "jitter"), strict=True
    ):
        expected = jitter(original, *(low + (high - low) * numbers.astype(float)))
        scaled = seen(expected * 255, preprocessing, np.float64)
        np.testing.assert_allclose(image, scaled, atol=1e-9)


def test_grey_images_have_brightness_and_contrast() -> None:
    images = stored(6, channels=1)
    result = once(augment.ColorJitter(contrast=0.5), seen(images, PLAIN, np.float64))
    for image, original, (u,) in zip(
        result.images, images / 255, draws(result.numbers, "jitter"), strict=True
    ):
        factor, grey = 0.5 + float(u), original.mean()
        np.testing.assert_allclose(image, np.clip(factor * (original - grey) + grey, 0, 1), atol=1e-9)


# Erasing.


@pytest.mark.parametrize("value", [0.25, "random"])
def test_erasing(value: float | str) -> None:
    x = seen(stored(200, height=30, width=30), COLOUR)
    wish = augment.RandomErasing(0.6, (0.05, 0.4), (0.5, 2.0), value)
    result = once(wish, x, preprocessing=COLOUR)
    changed = (result.images != x).any(1)
    numbers = draws(result.numbers, "erase")
    np.testing.assert_array_equal(changed.any((1, 2)), numbers[:, 0] < 0.6)
    for image, mask, (_, a, r, u, v) in zip(result.images, changed, numbers.astype(float), strict=True):
        if not mask.any():
            continue
        rows, columns = (np.flatnonzero(mask.any(axis)) for axis in (1, 0))
        tall, wide = len(rows), len(columns)
        assert mask[rows[0] :][:tall, columns[0] :][:, :wide].all()  # one rectangle
        area, ratio = 900 * (0.05 + 0.35 * a), 0.5 * 4**r
        assert tall == pytest.approx(math.sqrt(area * ratio), abs=1.2)  # 64 levels of each
        assert wide == pytest.approx(math.sqrt(area / ratio), abs=1.2)
        assert (rows[0], columns[0]) == (math.floor(u * (31 - tall)), math.floor(v * (31 - wide)))
        if value == 0.25:
            assert np.all(image[:, mask] == 0.25)
        else:
            pixels = image * np.array(COLOUR.std)[:, None, None] + np.array(COLOUR.mean)[:, None, None]
            assert -1e-6 < pixels[:, mask].min() < pixels[:, mask].max() < 1 + 1e-6
    if value == "random":
        drawn = result.numbers["augment/erase/value/draws"].reshape(x.shape)
        back = (drawn - np.array(COLOUR.mean)[:, None, None]) / np.array(COLOUR.std)[:, None, None]
        erased = np.broadcast_to(changed[:, None], x.shape)
        np.testing.assert_allclose(result.images[erased], back[erased], atol=1e-6)


def test_a_rectangle_fits_whatever_the_image() -> None:
    x = np.ones((100, 1, 3, 40), np.float32)
    result = once(augment.RandomErasing(1.0, (0.2, 0.9), (5.0, 20.0)), x)
    shares = (result.images == 0).mean((1, 2, 3))
    assert 0.15 < shares.min() < shares.max() < 0.95
