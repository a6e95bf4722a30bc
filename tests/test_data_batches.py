"""The check against a network, what becomes of images and labels, and batches in order and ahead of time."""

import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cnnc.bundle import Manifest, Preprocessing, TargetSpec, TensorSpec
from cnnc.data import (
    Dataset,
    Prefetcher,
    Split,
    batches,
    check,
    default_for,
    epoch_order,
    load_for,
    preprocess,
    targets,
)
from cnnc.errors import DataError, UsageError

INPUT = TensorSpec("image", "float32", ("N", 3, 4, 5))
CLASS = TargetSpec("label", "class", "int64", ("N",))
BINARY = TargetSpec("target", "binary", "float32", ("N", 1))
VALUE = TargetSpec("target", "value", "float32", ("N", 2))
IMAGES = np.arange(6 * 60, dtype=np.uint8).reshape(6, 3, 4, 5)
INDICES = np.array([0, 1, 2, 2, 1, 0])


def manifest(target: TargetSpec = CLASS, outputs: int | str = 3, classes: tuple[str, ...] = ()) -> Manifest:
    return Manifest(
        name="test", producer="", opset=18, ir_version=10, input=INPUT,
        output=TensorSpec("output", "float32", ("N", outputs)), activation="identity", target=target,
        preprocessing=Preprocessing(), classes=classes, loss={}, optimizer={}, learning_rate=0.1, metrics=(),
        scalars={}, seed=0, state=(), functions=(),
    )  # fmt: skip


def dataset(
    images: np.ndarray = IMAGES, labels: np.ndarray = INDICES, classes: tuple[str, ...] = ()
) -> Dataset:
    return Dataset("data", Split(images, labels, "there"), Split(images, labels, "there"), classes)


FLOATS = IMAGES.astype(np.float32)


@pytest.mark.parametrize(
    ("data", "network"),
    [
        (dataset(), manifest()),
        (dataset(FLOATS / 255), manifest()),
        (dataset(np.round(FLOATS / 255)), manifest()),
        (dataset(np.round(FLOATS / 255) - 1), manifest()),
        (dataset(np.where(FLOATS == 70, 70.5, FLOATS)), manifest()),
        (dataset(FLOATS), replace(manifest(), preprocessing=Preprocessing(scale=1.0))),
        (dataset(), manifest(outputs=10)),
        (dataset(), manifest(outputs="classes")),
        (dataset(), replace(manifest(), input=TensorSpec("image", "float32", ("N", 3, "H", "W")))),
        (dataset(classes=("a", "b", "c")), manifest(classes=("a", "b", "c"))),
        (dataset(classes=("a", "b", "c")), manifest(classes=("0", "1", "2"))),
        (dataset(classes=("0", "1", "2")), manifest(classes=("a", "b", "c"))),
        (dataset(classes=("a", "b", "c")), manifest()),
        (dataset(), manifest(classes=("a", "b", "c"))),
        (dataset(labels=INDICES % 2), manifest(BINARY, 1)),
        (dataset(labels=INDICES / 2), manifest(BINARY, 1)),
        (dataset(labels=np.ones((6, 2), np.float32)), manifest(VALUE, 2)),
        (dataset(labels=INDICES - 7, classes=("a",)), manifest(replace(VALUE, shape=("N", 1)), 1, ("b",))),
    ],
)
def test_what_fits_passes(data: Dataset, network: Manifest) -> None:
    check(data, network)


@pytest.mark.parametrize(
    ("data", "network", "message"),
    [
        (dataset(IMAGES[:0], INDICES[:0]), manifest(), "there: this holds no images"),
        (dataset(labels=INDICES[:5]), manifest(), "6 images and 5 labels"),
        (
            dataset(IMAGES[:, :1]),
            manifest(),
            r"images are \[C, H, W\] = \[1, 4, 5\], .*'image' is \[3, 4, 5\]",
        ),
        (dataset(IMAGES[..., :4]), manifest(), r"\[3, 4, 4\]"),
        (dataset(np.where(FLOATS == 130, np.nan, FLOATS)), manifest(), "image 2 .* NaN or infinite"),
        (dataset(np.where(FLOATS == 70, np.inf, FLOATS)), manifest(), "image 1 .* NaN or infinite"),
        (dataset(FLOATS), manifest(), "there: the images are floats of nothing but whole numbers, up to 255"),
        (dataset(FLOATS.astype(np.float16) // 100), manifest(), "whole numbers, up to 2"),
        (dataset(labels=INDICES - 1), manifest(), r"between -1 and 1 \(image 0 has -1\), .* 0 to 2"),
        (dataset(labels=INDICES), manifest(outputs=2), r"between 0 and 2 \(image 2 has 2\), .* 0 to 1"),
        (dataset(labels=INDICES - 1), manifest(outputs="K"), "0 to …"),
        (dataset(), manifest(outputs="K", classes=("a", "b")), "0 to 1"),
        (dataset(labels=INDICES.astype(np.float32)), manifest(), "labels are float32.*takes class indices"),
        (dataset(labels=np.eye(6, dtype=int)), manifest(), r"labels are int64 \[6, 6\]"),
        (
            dataset(classes=("a", "c", "b")),
            manifest(classes=("a", "b", "c")),
            "class 1 is 'c' in the data and 'b'",
        ),
        (dataset(classes=("a", "b")), manifest(classes=("a", "b", "c")), "data has 2 classes, the network 3"),
        (dataset(), manifest(BINARY, 1), "between 0 and 2"),
        (dataset(labels=np.ones((6, 3), np.float32)), manifest(VALUE, 2), r"targets are \[6, 3\]"),
        (
            dataset(labels=np.ones(6, np.float32)),
            manifest(VALUE, 2),
            r"targets are \[6\].*'target' is \['N', 2\]",
        ),
        (dataset(labels=np.full(6, np.nan)), manifest(BINARY, 1), "NaN"),
        (dataset(labels=np.full((6, 2), np.inf)), manifest(VALUE, 2), "NaN or infinite"),
    ],
)
def test_what_does_not_fit_is_refused(data: Dataset, network: Manifest, message: str) -> None:
    with pytest.raises(DataError, match=message):
        check(data, network)


@pytest.mark.parametrize("sizes", [(4, 3), ("H", "W")])
def test_the_networks_input_settles_what_the_data_leaves_open(
    tmp_path: Path, sizes: tuple[int | str, ...]
) -> None:
    for name in ("train.npz", "test.npz"):
        np.savez(tmp_path / name, x=np.zeros((6, 3, 4, 1 if sizes[0] == "H" else 3), np.uint8), y=INDICES)
    network = replace(manifest(classes=("a", "b", "c")), input=replace(INPUT, shape=("N", 3, *sizes)))
    data = load_for(network, tmp_path)
    assert data.train.images.shape[1] == 3
    assert data.classes == ("a", "b", "c")
    check(data, network)


def test_the_default_data_is_called_as_the_network_is() -> None:
    assert default_for(replace(manifest(), name="digits")) == "digits"
    with pytest.raises(UsageError, match=r"no data set called 'test'.*--data: digits, mnist, fashion-mnist"):
        default_for(manifest())


def test_both_splits_are_checked() -> None:
    data = dataset()
    for bad in (replace(data, train=data.train.take(slice(0))), replace(data, test=data.test.take(slice(0)))):
        with pytest.raises(DataError, match="no images"):
            check(bad, manifest())


@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.float64])
def test_preprocessing_is_the_formula(dtype: type[np.generic]) -> None:
    images = IMAGES.astype(dtype).transpose(0, 1, 3, 2).copy().transpose(0, 1, 3, 2)
    mean, std = (0.1, 0.2, 0.3), (1.0, 0.5, 2.0)
    values = preprocess(images, Preprocessing(1 / 255, mean, std), INPUT)
    scale = 1 / 255 if dtype == np.uint8 else 1
    expected = (IMAGES * scale - np.reshape(mean, (3, 1, 1))) / np.reshape(std, (3, 1, 1))
    assert values.dtype == np.float32
    assert values.flags.c_contiguous
    np.testing.assert_allclose(values, expected, rtol=1e-6, atol=1e-6)


def test_preprocessing_leaves_the_stored_images_alone() -> None:
    before = FLOATS.copy()
    preprocess(FLOATS, Preprocessing(mean=(1, 1, 1)), INPUT)
    np.testing.assert_array_equal(FLOATS, before)


def test_preprocessing_refuses_other_sizes() -> None:
    with pytest.raises(DataError, match=r"\[3, 4, 4\].*\[3, 4, 5\]"):
        preprocess(IMAGES[..., :4], Preprocessing(), INPUT)


@pytest.mark.parametrize(
    ("labels", "spec", "shape"),
    [(INDICES, CLASS, (6,)), (INDICES, BINARY, (6, 1)), (np.ones((6, 2)), VALUE, (6, 2))],
)
def test_targets_have_the_graphs_type_and_axes(
    labels: np.ndarray, spec: TargetSpec, shape: tuple[int, ...]
) -> None:
    values = targets(labels, spec)
    assert values.dtype == spec.dtype
    assert values.shape == shape


def test_the_order_is_a_permutation_fixed_for_ever() -> None:
    order = epoch_order(1000, seed=3, epoch=2)
    assert order.dtype == np.int64
    assert sorted(order) == list(range(1000))
    assert epoch_order(8, seed=0, epoch=0).tolist() == [3, 2, 7, 0, 5, 4, 6, 1]


def test_orders_differ_by_seed_and_epoch() -> None:
    orders = {tuple(epoch_order(50, seed, epoch)) for seed in range(5) for epoch in range(5)}
    assert len(orders) == 25


def test_orders_are_uniform() -> None:
    """Each of 5 examples stands in each place equally often: chi-square, 16 degrees of freedom, p = 0.001."""
    counts = np.zeros((5, 5))
    for epoch in range(2000):
        counts[np.arange(5), epoch_order(5, 0, epoch)] += 1
    assert ((counts - 400) ** 2 / 400).sum() < 39.3


@pytest.mark.parametrize("order", [None, np.array([5, 3, 1, 0, 2, 4]), np.array([2, 2])])
@pytest.mark.parametrize("size", [1, 4, 6, 100])
@pytest.mark.parametrize("start", [0, 1, 9])
def test_batches_go_through_the_order(order: np.ndarray | None, size: int, start: int) -> None:
    split = Split(IMAGES, INDICES, "here")
    indices = np.arange(6) if order is None else order
    found = list(batches(split, size, order=order, start=start))
    expected = indices[start * size :]
    assert [len(batch) for batch in found[:-1]] == [size] * (len(found) - 1)
    assert sum(map(len, found)) == len(expected)
    if found:
        np.testing.assert_array_equal(np.concatenate([batch.images for batch in found]), IMAGES[expected])
        np.testing.assert_array_equal(np.concatenate([batch.labels for batch in found]), INDICES[expected])


@pytest.fixture
def no_thread_left() -> Iterator[None]:
    before = threading.active_count()
    yield
    assert threading.active_count() == before


@pytest.mark.usefixtures("no_thread_left")
class TestPrefetcher:
    @pytest.mark.parametrize("depth", [1, 2, 5])
    @pytest.mark.parametrize("count", [0, 1, 100])
    def test_items_come_in_order(self, count: int, depth: int) -> None:
        with Prefetcher(range(count), depth) as ready:
            assert list(ready) == list(range(count))
            assert list(ready) == []

    def test_items_are_made_ahead_but_no_more_than_depth(self) -> None:
        made = []
        third = threading.Event()

        def items() -> Iterator[int]:
            for index in range(9):
                made.append(index)
                if index == 2:
                    third.set()
                yield index

        with Prefetcher(items(), depth=2) as ready:
            next(ready)
            assert third.wait(10)
            assert made == [0, 1, 2]

    def test_an_exception_comes_after_the_items_before_it(self) -> None:
        def items() -> Iterator[int]:
            yield 1
            raise DataError("gone")

        with Prefetcher(items()) as ready:
            assert next(ready) == 1
            with pytest.raises(DataError, match="gone"):
                next(ready)
            assert list(ready) == []

    def test_leaving_early_ends_the_thread(self) -> None:
        with Prefetcher(iter(int, 1)) as ready:
            assert [next(ready) for _ in range(3)] == [0, 0, 0]

    def test_leaving_by_an_exception_ends_the_thread(self) -> None:
        with pytest.raises(KeyboardInterrupt), Prefetcher(iter(int, 1)):
            raise KeyboardInterrupt

    def test_going_through_all_without_a_with_ends_the_thread(self) -> None:
        assert list(Prefetcher("abc")) == ["a", "b", "c"]

    def test_closing_twice_is_allowed(self) -> None:
        ready = Prefetcher(range(5))
        ready.close()
        ready.close()
        assert list(ready) == []

    def test_going_on_in_the_middle_of_an_epoch_gives_the_same_batches(self) -> None:
        split, order = Split(IMAGES, INDICES), epoch_order(6, seed=1, epoch=1)
        with (
            Prefetcher(batches(split, 2, order=order)) as whole,
            Prefetcher(batches(split, 2, order=order, start=1)) as rest,
        ):
            next(whole)
            for ours, theirs in zip(whole, rest, strict=True):
                np.testing.assert_array_equal(ours.images, theirs.images)
