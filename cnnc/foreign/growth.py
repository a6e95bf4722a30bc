"""How what shapes compute grows with the batch: along a line, or bent.

A walk sees two or three sizes of the batch, by which half of it, its square or the larger of it and 5 look
like a line, too. What is computed of it is therefore looked at for further sizes.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
from onnx import NodeProto

from cnnc.foreign.folding import fold
from cnnc.foreign.world import Array, World

FURTHER = (1, 7, 64)
"""Sizes of the batch that a walk does not see, in units of that which the source is made for."""


def line(arrays: Sequence[Array], batches: Sequence[int]) -> tuple[Array | None, Array]:
    """Slope and rest of numbers that are linear in the batch; no slope where they are not."""
    first = arrays[0]
    if any(array.shape != first.shape for array in arrays):
        return None, first
    if all(np.array_equal(array, first) for array in arrays):
        return np.zeros_like(first), first
    if first.dtype.kind not in "if" or len(batches) < 2:
        return None, first
    step = batches[1] - batches[0]
    slope = (arrays[1] - first) // step if first.dtype.kind == "i" else (arrays[1] - first) / step
    rest = first - slope * batches[0]
    fits = all(np.allclose(slope * b + rest, a, 1e-6, 0) for a, b in zip(arrays, batches, strict=True))
    return (slope if fits else None), rest


def bends(
    node: NodeProto, worlds: Sequence[World], results: Sequence[Sequence[Array]], bent: Collection[str]
) -> bool:
    """Whether a node, which gave `results`, has an output that is not linear in the batch, as `bent` are."""
    names = [name for name in node.input if name]
    if len(worlds) < 2 or node.op_type in ("Shape", "Size"):
        return False
    if any(name in bent for name in names):
        return True
    batches = [world.batch for world in worlds]
    given = {name: line([world.known[name] for world in worlds], batches) for name in names}
    found = [line(arrays, batches) for arrays in zip(*results, strict=True)]
    if any(slope is None for slope, _ in (*given.values(), *found)):
        return True
    if not any(np.any(slope) for slope, _ in given.values()):
        return False
    unit = batches[1] - batches[0]
    for batch in (factor * unit for factor in FURTHER):
        if batch == unit and any(array.dtype.kind == "b" for array in results[0]):
            continue  # whether it is one example: what is done for others is right for one, too
        known = {name: _at(each, batch) for name, each in given.items()}
        arrays = fold(node, known, [], worlds[0].types)
        if arrays is None or not _are(arrays, [_at(each, batch) for each in found]):
            return True
    return False


def _at(each: tuple[Array | None, Array], batch: int) -> Array:
    slope, rest = each
    return rest if slope is None or not np.any(slope) else np.asarray(slope * batch + rest, rest.dtype)


def _are(arrays: Sequence[Array], others: Sequence[Array]) -> bool:
    return all(
        one.shape == other.shape and np.allclose(one, other, 1e-6, 0)
        for one, other in zip(arrays, others, strict=True)
    )
