"""What is known of a graph's values for one size of the batch, and constants that name that size."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import NodeProto, TypeProto, helper

from cnnc.foreign.protos import attributes

Array = npt.NDArray[Any]
Dims = tuple[int, ...]


@dataclass
class World:
    """What is known of every value where the batch has `batch` examples."""

    batch: int
    types: dict[str, TypeProto] = field(default_factory=dict)
    known: dict[str, Array] = field(default_factory=dict)

    def dims(self, name: str) -> Dims | None:
        """The sizes of a value, None where they depend on data."""
        tensor = self.types[name].tensor_type
        if not tensor.HasField("shape") or any(not d.HasField("dim_value") for d in tensor.shape.dim):
            return None
        return tuple(d.dim_value for d in tensor.shape.dim)

    def know(self, name: str, array: Array) -> None:
        """A value is this constant."""
        self.known[name] = array
        self.types[name] = helper.make_tensor_type_proto(
            helper.np_dtype_to_tensor_dtype(array.dtype), array.shape
        )


def keep_batch(node: NodeProto, worlds: Sequence[World], fresh: Callable[[str], str]) -> None:
    """Give a Reshape of a source with a fixed batch the target that each world's batch asks for."""
    one, shapes = worlds[0], [world.dims(node.input[0]) for world in worlds]
    target, first = one.known.get(node.input[1]), shapes[0]
    if target is None or first is None or all(shape == first for shape in shapes):
        return
    wanted = [first[i] if d == 0 and i < len(first) else int(d) for i, d in enumerate(target)]
    if -1 in wanted:
        wanted[wanted.index(-1)] = math.prod(first) // (-math.prod(wanted) or 1)
    node.input[1] = fresh(f"{node.output[0]}/shape")
    for world in worlds:
        sizes = [wanted[0] * world.batch // one.batch, *wanted[1:]]
        world.know(node.input[1], np.asarray(sizes, np.int64))


def only_other_axes(node: NodeProto, worlds: Sequence[World], fresh: Callable[[str], str]) -> None:
    """Let a Resize that lists the sizes of all axes list only those that it changes."""
    name = node.input[3] if len(node.input) > 3 else ""
    given = attributes(node)
    if (
        not name
        or "axes" in given
        or "keep_aspect_ratio_policy" in given
        or any(name not in world.known for world in worlds)
    ):
        return
    shape, sizes = worlds[0].dims(node.input[0]), worlds[0].known[name]
    if shape is None or len(shape) < 3 or tuple(sizes[:2]) != shape[:2]:
        return
    node.input[3] = fresh(f"{node.output[0]}/sizes")
    node.attribute.append(helper.make_attribute("axes", list(range(2, len(shape)))))
    for world in worlds:
        world.know(node.input[3], np.asarray(world.known[name][2:], np.int64))
