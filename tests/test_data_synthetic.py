"""Made-up examples: they pass the check that real data must pass, whatever the network asks for."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from tiny_bundle import MANIFEST

from cnnc.bundle import HeadSpec, Manifest, TargetSpec, TensorSpec
from cnnc.data import Dataset, assumed_sizes, check, synthetic_batch, synthetic_split
from cnnc.errors import ModelError

PIXELS, OPEN = ("N", 8, 8), ("N", "H", "W")


def network(target: TargetSpec, output: tuple[int | str, ...] = ("N", 10)) -> Manifest:
    return replace(MANIFEST, target=target, output=TensorSpec("output", "float32", output))


def several() -> Manifest:
    """Labels, a map of values under another name, and a second output with the labels of the first."""
    depth = TargetSpec("label/depth", "value", "float32", ("N", 1, 8, 8), array="y_depth")
    output = TensorSpec("depth", "float32", ("N", 1, 8, 8))
    coarse = replace(MANIFEST.heads[0], name="coarse", output=TensorSpec("coarse", "float32", ("N", 3)))
    return replace(
        MANIFEST,
        classes=(),
        further=(HeadSpec("depth", output, "identity", depth, (), {}), replace(coarse, classes=())),
    )


NETWORKS = {
    "classes": MANIFEST,
    "classes, one ignored": network(TargetSpec("label", "class", "int64", ("N",), ignored=255)),
    "classes, one of them ignored": network(TargetSpec("label", "class", "int64", ("N",), ignored=0)),
    "pixels": network(TargetSpec("label", "class", "int64", PIXELS, ignored=255), ("N", 10, 8, 8)),
    "masks": network(TargetSpec("target", "binary", "float32", ("N", 2, 8, 8)), ("N", 2, 8, 8)),
    "distributions": network(TargetSpec("target", "distribution", "float32", ("N", 10))),
    "distributions of pixels": network(
        TargetSpec("target", "distribution", "float32", ("N", 3, 8, 8)), ("N", 3, 8, 8)
    ),
    "values": network(TargetSpec("target", "value", "float32", ("N", 10))),
    "several outputs": several(),
    "open sizes": replace(
        network(TargetSpec("label", "class", "int64", OPEN), ("N", 10, "H", "W")),
        input=TensorSpec("image", "float32", ("N", 1, "H", "W")),
    ),
}


@pytest.mark.parametrize("manifest", NETWORKS.values(), ids=NETWORKS)
@pytest.mark.parametrize("count", [1, 100])
def test_made_up_examples_fit_the_network(manifest: Manifest, count: int) -> None:
    sizes = assumed_sizes(manifest)
    split = synthetic_split(manifest, count, "test", sizes)
    assert len(split) == count
    check(Dataset("made up", split, split, MANIFEST.classes if manifest.classes else ()), manifest)
    batch = synthetic_batch(manifest, count, "test", sizes)
    specs: list[TensorSpec | TargetSpec] = [manifest.input, *manifest.targets]
    assert [array.dtype for array in batch] == [np.dtype(spec.dtype) for spec in specs]
    known = {"N": count, **sizes}
    assert [array.shape for array in batch] == [
        tuple(known[d] if isinstance(d, str) else d for d in spec.shape) for spec in specs
    ]


@pytest.mark.parametrize("name", ["classes, one ignored", "classes, one of them ignored", "pixels"])
def test_some_labels_are_the_ignored_one_but_never_all(name: str) -> None:
    manifest = NETWORKS[name]
    labels = synthetic_split(manifest, 400, "test").labels
    share = np.mean(labels == manifest.target.ignored)
    assert share == pytest.approx(1 / 8, abs=0.05)
    assert synthetic_split(manifest, 1, "test").labels.flat[0] != manifest.target.ignored
    assert len(np.unique(labels[labels != manifest.target.ignored])) >= 9


def test_they_are_a_function_of_seed_and_name() -> None:
    one, same = (synthetic_batch(MANIFEST, 5, "name") for _ in range(2))
    others = synthetic_batch(MANIFEST, 5, "other"), synthetic_batch(replace(MANIFEST, seed=1), 5, "name")
    assert all(map(np.array_equal, one, same))
    assert not any(np.array_equal(array, other[i]) for other in others for i, array in enumerate(one))


def test_a_size_that_nothing_fixes_is_named() -> None:
    with pytest.raises(ModelError, match=r"'image' has sizes that nothing fixes \(H, W\)"):
        synthetic_split(NETWORKS["open sizes"], 1, "test")
    assert synthetic_split(NETWORKS["open sizes"], 1, "test", {"H": 5, "W": 6}).labels.shape == (1, 5, 6)
