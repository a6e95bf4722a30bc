"""What a walk knows of every value: its type for several sizes of the batch, and the numbers of constants."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from cnnc.foreign.folding import FEW
from cnnc.foreign.world import Array, World
from cnnc.names import unique


class Values:
    """Values by name, in several worlds at once. Implements `cnnc.foreign.emit.Facts`.

    `weights` are tensors whose values no fold may use up: they may be parameters. `filled` are those that a
    ConstantOfShape makes, with their value; `copies` those that an Identity node names anew; `inner` those of
    graphs inside the graph. `bent` are constants that depend on the batch, and not along a line;
    `sequences` lists of values.
    """

    def __init__(self, batches: Sequence[int], names: set[str]) -> None:
        self.worlds = [World(batch) for batch in batches]
        self.weights: set[str] = set()
        self.filled: dict[str, Array] = {}
        self.copies: dict[str, str] = {}
        self.inner: dict[str, TensorProto] = {}
        self.bent: set[str] = set()
        self.sequences: dict[str, list[str]] = {}
        self._namesakes: dict[str, list[str]] = {}
        self._alias: dict[str, str] = {}
        self._names = names

    # Facts, for the forms of other opsets.

    def rank(self, name: str) -> int:
        """Number of dimensions."""
        return len(self.worlds[0].types[self.alias(name)].tensor_type.shape.dim)

    def dtype(self, name: str) -> int:
        """Element type."""
        return int(self.worlds[0].types[self.alias(name)].tensor_type.elem_type)

    def dims(self, name: str) -> tuple[int | None, ...]:
        """The sizes; None where one is another for other batches, or depends on data."""
        each = [world.dims(self.alias(name)) for world in self.worlds]
        known = [dims for dims in each if dims is not None]
        if len(known) < len(each):
            return (None,) * self.rank(name)
        return tuple(sizes[0] if len(set(sizes)) == 1 else None for sizes in zip(*known, strict=True))

    def known(self, name: str) -> Array | None:
        """The numbers of a constant that is the same for every batch; None where it is computed."""
        if self.alias(name) in self.bent:
            return None
        each = [world.known.get(self.alias(name)) for world in self.worlds]
        first = each[0]
        same = first is not None and all(a is not None and np.array_equal(a, first) for a in each)
        return first if same else None

    def constant(self, array: Array) -> str:
        """The name of a new constant, which shape computations may use."""
        name = self.fresh("constant")
        for world in self.worlds:
            world.know(name, array)
        return name

    def fresh(self, name: str) -> str:
        """`name`, or with a number that makes it new."""
        return unique(name, self._names)

    def alias(self, name: str) -> str:
        """What a name stands for, after the nodes that only rename are gone."""
        return self._alias.get(name, name)

    def rename(self, name: str, value: str) -> None:
        """`name` is another one for a value."""
        self._alias[name] = self.alias(value)

    def has(self, name: str) -> bool:
        """Whether a value's type is known: a node with a problem gives none."""
        return self.alias(name) in self.worlds[0].types

    def alike(self, one: str, other: str) -> bool:
        """Whether two values have the same type and the same sizes, for every batch."""
        one, other = self.alias(one), self.alias(other)
        sizes = [(world.dims(one), world.dims(other)) for world in self.worlds]
        return self.dtype(one) == self.dtype(other) and all(a is not None and a == b for a, b in sizes)

    # What the graph begins with.

    def input(self, name: str, dtype: int, dims: Sequence[int]) -> None:
        """The data input: `dims` of one example."""
        for world in self.worlds:
            world.types[name] = helper.make_tensor_type_proto(dtype, (world.batch, *dims))

    def tensor(self, name: str, tensor: TensorProto) -> None:
        """An initializer or constant. A floating one with more than one element may be a parameter."""
        size = math.prod(tensor.dims)
        few = size <= FEW and tensor.data_location != TensorProto.EXTERNAL
        array = numpy_helper.to_array(tensor) if few else None
        for world in self.worlds:
            if array is not None:
                world.know(name, array)
            else:
                world.types[name] = helper.make_tensor_type_proto(tensor.data_type, tensor.dims)
        if array is None or (size > 1 and array.dtype.kind not in "iub"):
            self.weights.add(name)

    def inner_tensor(self, tensor: TensorProto) -> str:
        """A tensor of a graph inside the graph, and what it is called here.

        A body that is written out several times has it once; two branches may call theirs the same.
        """
        namesakes = self._namesakes.setdefault(tensor.name, [])
        for name in namesakes:
            if self.inner[name] == tensor:
                return name
        name = self.fresh(tensor.name) if tensor.name in self.worlds[0].types else tensor.name
        namesakes.append(name)
        self.inner[name] = tensor
        self.tensor(name, tensor)
        return name
