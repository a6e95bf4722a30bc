"""Dropout masks: what they promise, bit for bit on every runtime, and that nothing in them repeats.

The statistics run on a mirror of the generator in NumPy's int64, which every runtime's masks are compared
with. They are a fast part of what the generator was chosen by (docs/decisions/0002). All of it is fixed by
seeds: a test passes always or never.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from generator import PRIME, chi_square, drawn
from onnx import helper, inliner
from onnx.reference import ReferenceEvaluator
from traced import lowered

from cnnc.deploy.runtimes import REFERENCE, RUNTIMES, Runtime
from cnnc.ir import Builder, TensorType
from cnnc.opset import OPSET

Array = np.ndarray[Any, Any]
PRESENT = [runtime for runtime in RUNTIMES if not runtime.absence()]
LAST = 2**31 - 1
KEYS = [(0, 0), (1, 0), (0, 1), (20260101, 10**7), (2**24 + 1, 2**24 - 1), (LAST, 0), (LAST, LAST)]


def mask_model(
    dims: tuple[int | str, ...], ratio: float = 0.3, stream: int = 5, dtype: ir.DataType = ir.DataType.FLOAT
) -> onnx.ModelProto:
    """A graph from x, seed and step to x·mask: runtimes may drop an input that only lends its shape."""
    builder = Builder(ir.Graph([], [], nodes=[], opset_imports={"": OPSET}, name="dropout"))
    x = builder.input("x", TensorType(dtype, dims))
    seed, step = (builder.input(name, TensorType(ir.DataType.INT64, ())) for name in ("seed", "step"))
    mask = builder.op("DropoutMask", x, seed, step, name="mask", ratio=ratio, stream=stream)
    builder.graph.outputs.append(builder.op("Mul", x, mask, name="y"))
    return lowered(builder.graph)


def masks(runtime: Runtime, model: onnx.ModelProto) -> Callable[..., Array]:
    """The mask of a model as a function of x's shape and dtype, the seed and the step."""
    call = runtime.load(model)

    def mask(shape: tuple[int, ...], seed: int, step: int, dtype: str = "float32") -> Array:
        feeds = {"x": np.ones(shape, dtype), "seed": np.array(seed), "step": np.array(step)}
        return call(feeds)["y"]

    return mask


# What a mask is.


@pytest.mark.parametrize("runtime", PRESENT, ids=[runtime.name for runtime in PRESENT])
@pytest.mark.parametrize(
    ("dims", "shape", "columns"),
    [
        (("N", 6, 8, 8), (5, 6, 8, 8), 128),
        (("N", 100), (7, 100), 100),
        ((3, 4, 5, 7), (3, 4, 5, 7), 70),
        (("N",), (9,), 1),
        ((4,), (4,), 1),
        ((), (), 1),
    ],
    ids=str,
)
def test_every_runtime_draws_the_same_mask(
    runtime: Runtime,
    dims: tuple[int | str, ...],
    shape: tuple[int, ...],
    columns: int,
) -> None:
    mask = masks(runtime, mask_model(dims))
    for seed, step in KEYS:
        numbers = drawn(seed, step, 5, int(np.prod(shape)) // columns, columns)
        expected = np.where(numbers < round(0.3 * 2**15), 0, np.float32(1 / 0.7)).reshape(shape)
        np.testing.assert_array_equal(mask(shape, seed, step), expected, f"seed {seed}, step {step}")


@pytest.mark.parametrize("dims", [("N", "C"), ("N", 3, "H", "W"), ("N", "C", "L")], ids=str)
def test_sizes_that_only_the_run_knows(dims: tuple[int | str, ...]) -> None:
    shape = (4, 3, 5, 7)[: len(dims)]
    mask = masks(REFERENCE, mask_model(dims))(shape, 1, 2)
    columns = int(np.prod(shape[1:]))
    np.testing.assert_array_equal(mask.reshape(4, columns) == 0, drawn(1, 2, 5, 4, columns) < 9830)


@pytest.mark.parametrize("dims", [("N", 3, 8, 8), ("N", 10), ("N", "C", 4)], ids=str)
def test_a_short_batch_draws_a_prefix(
    dims: tuple[int | str, ...],
) -> None:
    mask, (_, *example) = masks(REFERENCE, mask_model(dims)), (0, 3, 8, 8)
    example = [6 if isinstance(d, str) else d for d in dims[1:]]
    np.testing.assert_array_equal(mask((5, *example), 1, 2), mask((8, *example), 1, 2)[:5])


def test_a_batch_of_fixed_size_draws_the_same() -> None:
    fixed, symbolic = (masks(REFERENCE, mask_model((n, 3, 8, 8))) for n in (6, "N"))
    np.testing.assert_array_equal(fixed((6, 3, 8, 8), 1, 2), symbolic((6, 3, 8, 8), 1, 2))


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("ratio", [1e-3, 0.25, 0.5, 0.9])
def test_what_is_kept_is_scaled(dtype: str, ratio: float) -> None:
    model = mask_model(("N", 500), ratio, dtype=ir.DataType.from_numpy(np.dtype(dtype)))
    mask = masks(REFERENCE, model)((40, 500), 3, 4, dtype)
    assert mask.dtype == dtype
    np.testing.assert_array_equal(np.unique(mask), np.array([0, 1 / (1 - ratio)], dtype))
    assert abs((mask == 0).mean() - ratio) < 4 * np.sqrt(ratio * (1 - ratio) / mask.size)


def test_every_intermediate_value_fits_float32() -> None:
    """Rows enough for the index to have two digits; counters as large as they may be."""
    flat = inliner.inline_local_functions(mask_model(("N", 2), ratio=0.5))
    nodes = {name: node for node in flat.graph.node for name in node.output}
    flat.graph.output.extend(helper.make_empty_tensor_value_info(name) for name in nodes if name != "y")
    evaluator = ReferenceEvaluator(flat)
    for seed, step in KEYS:
        feeds = {"x": np.ones((PRIME * 3, 2), np.float32), "seed": np.array(seed), "step": np.array(step)}
        values = feeds | dict(zip(evaluator.output_names, evaluator.run(None, feeds), strict=True))
        for name, value in values.items():
            if value.dtype.kind == "f":  # halves of 2^-15, and few enough of them
                assert not np.any(np.mod(value, 2.0**-16)), name
                assert np.abs(value).max() <= 2**8, name
            else:
                assert np.abs(value).max() <= LAST, name
        for name, node in nodes.items():
            operand = values[node.input[0]] if node.op_type in ("Mod", "Div", "ReduceSum") else np.zeros(1)
            is_counter = node.op_type == "Div" and operand.ravel().tolist() == [seed, step]
            assert np.abs(operand).max() < 2**24 or is_counter, name


def test_the_largest_index_and_key_fit_float32() -> None:
    assert (PRIME - 1) ** 2 + 2 * (PRIME - 1) < 2**24
    assert 63.5**2 * sum(2.0 ** -(7 + k) for k in range(8)) * 2**16 < 2**24 / 4


# Statistics. A score is in standard deviations of what independent uniform numbers give.


def heads(seed: int, step: int, stream: int, rows: int = 1024, columns: int = 512, rounds: int = 3) -> Array:
    """The uppermost bit of every number, as -1 and 1."""
    return 1.0 - 2.0 * (drawn(seed, step, stream, rows, columns, rounds) >> 14)


@cache
def million() -> Array:
    """Numbers of eight steps, [8, 1024, 512]."""
    return np.stack([drawn(1, step, 2, 1024, 512) for step in range(8)])


def test_numbers_and_their_bits_are_uniform() -> None:
    numbers = million()
    assert abs(chi_square(np.bincount(numbers.ravel(), minlength=2**15))) < 4
    for bit in range(5, 15):
        assert abs((2.0 * (numbers >> bit & 1) - 1).sum()) < 4 * np.sqrt(numbers.size)


@pytest.mark.parametrize(
    "axis", ["column", "row", "step", "seed", "stream", "next matrix width", "three rows", "two columns"]
)
def test_successive_numbers_are_independent(axis: str) -> None:
    """Pairs of the upper five bits fill their square evenly."""
    n = million()
    choices: dict[str, Callable[[], tuple[Array, Array]]] = {
        "column": lambda: (n[:, :, :-1], n[:, :, 1:]),
        "row": lambda: (n[:, :-1], n[:, 1:]),
        "step": lambda: (n[:-1], n[1:]),
        "seed": lambda: (n[0], drawn(2, 0, 2, 1024, 512)),
        "stream": lambda: (n[0], drawn(1, 0, 3, 1024, 512)),
        "next matrix width": lambda: (n[0, :512, :511], drawn(1, 0, 2, 512, 511)),
        "three rows": lambda: (n[:, :-3], n[:, 3:]),
        "two columns": lambda: (n[:, :, :-2], n[:, :, 2:]),
    }
    this, other = choices[axis]()
    pairs = (this.ravel() >> 10 << 5) + (other.ravel() >> 10)
    assert abs(chi_square(np.bincount(pairs, minlength=1024))) < 4


def correlations(rounds: int) -> Iterator[float]:
    """Scores of pairs and of rectangles (2-D lattices show in them), at distances where periods could be."""
    for step in range(2):
        signs = heads(7, step, 9, rows=4500, columns=128, rounds=rounds)
        for rows in (0, 1, 2, 64, PRIME - 128, PRIME):
            for columns in (0, 1, 2, 64):
                there = signs[rows:, columns:]
                here, below, beside = (
                    signs[r : r + there.shape[0], c : c + there.shape[1]]
                    for r, c in ((0, 0), (rows, 0), (0, columns))
                )
                if rows or columns:
                    yield (here * there).sum() / np.sqrt(there.size)
                if rows and columns:
                    yield (here * below * beside * there).sum() / np.sqrt(there.size)


def test_places_are_independent() -> None:
    assert max(map(abs, correlations(rounds=3))) < 4.5


def test_that_one_round_would_be_too_few() -> None:
    assert max(map(abs, correlations(rounds=1))) > 20


def test_runs_have_the_right_number() -> None:
    signs = heads(3, 4, 5).ravel()
    changes = (signs[1:] != signs[:-1]).sum()
    assert abs(changes - signs.size / 2) < 4 * np.sqrt(signs.size / 4)


def test_ten_million_elements_have_no_period() -> None:
    """No lag correlates and no frequency stands out, from one matrix to the next and within."""
    signs = np.concatenate([heads(11, step, 13, rows=1000, columns=1000).ravel() for step in range(10)])
    power = np.abs(np.fft.rfft(signs)) ** 2 / signs.size
    assert power.max() < np.log(power.size) + 10  # it is exponentially distributed
    lags = np.fft.irfft(power)[1 : signs.size // 2] * np.sqrt(signs.size)
    assert np.abs(lags).max() < 6.5


def test_a_plane_has_no_lattice() -> None:
    power = np.abs(np.fft.rfft2(heads(17, 18, 19, rows=2048, columns=1024))) ** 2 / (2048 * 1024)
    assert power[:, 1:-1].max() < np.log(power.size) + 10


def test_birthdays_are_spaced_as_they_should_be() -> None:
    """Marsaglia's test: days of 30 bits from three neighbours, repeated spacings ~ Poisson(n³ / 4·2^30)."""
    ten = (million()[:, :, :510] >> 5).astype(np.int64).reshape(-1, 3)
    days = np.sort((ten @ [2**20, 2**10, 1])[: 300 * 4096].reshape(300, 4096))
    spacings = np.sort(np.diff(days))
    repeated = (spacings[:, 1:] == spacings[:, :-1]).sum()
    expected = 300 * 4096**3 / 2**32
    assert abs(repeated - expected) < 4 * np.sqrt(expected)


@pytest.mark.parametrize("ratio", [0.1, 0.5])
def test_masks_of_other_keys_are_unrelated(ratio: float) -> None:
    """A step, a seed or a stream more changes 2·ratio·(1 - ratio) of the mask; 2043 to 2047 are moduli."""
    threshold, change = round(ratio * 2**15), 2 * ratio * (1 - ratio)
    start = drawn(100, 200, 300, 1024, 512) < threshold
    for more in (1, 2, 128, 2043, 2045, 2047, 2043 * 2045, PRIME):
        for key in ((100 + more, 200, 300), (100, 200 + more, 300), (100, 200, 300 + more)):
            changed = ((drawn(*key, 1024, 512) < threshold) != start).mean()
            assert abs(changed - change) < 4.5 * np.sqrt(change * (1 - change) / start.size), key


def test_over_many_keys_the_share_of_what_is_dropped_is_binomial() -> None:
    scores = np.array(
        [
            ((drawn(7 * i, i // 3, i % 5, 16, 32) < 9830).sum() - 512 * 0.3) / np.sqrt(512 * 0.3 * 0.7)
            for i in range(2000)
        ]
    )
    assert abs(scores.sum()) < 4 * np.sqrt(scores.size)
    assert abs((scores**2).sum() - scores.size) < 4 * np.sqrt(2 * scores.size)
