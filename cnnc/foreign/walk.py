"""One walk over a foreign graph: every operator in our opset, every shape known, constants folded.

Each value's shape is inferred for several sizes of the batch at once, the *worlds* (2 and 3, and 1 where the
source fixes its batch to that). What shape computations give is a number in each world; where a size is the
same in all it is that size, where it grows with the batch it is ``"N"`` or a multiple, ``"4*N"``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper

from cnnc.errors import ModelError, UnsupportedError
from cnnc.foreign.batch import BatchDependence, check_apart, shown
from cnnc.foreign.channels import check_channels
from cnnc.foreign.control import write_out
from cnnc.foreign.extensions import extension_of
from cnnc.foreign.folding import FEW, fold, foldable
from cnnc.foreign.growth import bends
from cnnc.foreign.inlining import renamed
from cnnc.foreign.opsets import to_our_opset
from cnnc.foreign.protos import attributes, label, subgraphs
from cnnc.foreign.sequences import SEQUENCES, take_apart
from cnnc.foreign.structure import LARGEST_TENSOR
from cnnc.foreign.values import Values
from cnnc.foreign.world import Array, Dims, World, keep_batch, only_other_axes
from cnnc.opset import IR_VERSION, OPSET

LARGEST_VALUE = 2**31
"""Elements that a value may have for a few examples: more is an overflow or a bomb, not a network."""

DEPTH = 32
"""Nodes in a row that may make the scales of a Resize."""

_IMPORTS = [helper.make_opsetid("", OPSET)]


class Walk(Values):
    """Appends nodes of our opset, whose values it comes to know."""

    def __init__(self, version: int, batches: Sequence[int], fixed: bool, names: set[str]) -> None:
        super().__init__(batches, names)
        self.version, self.fixed = version, fixed
        self.nodes: list[NodeProto] = []
        self.written = 0
        self.problems: list[tuple[NodeProto, str]] = []
        self.origins: dict[str, NodeProto] = {}
        """For each value that is computed ahead, the node that gave it."""
        self._producers: dict[str, NodeProto] = {}
        self._rules = onnx.checker.C.CheckerContext()
        self._rules.ir_version = onnx.IR_VERSION
        self._rules.opset_imports = {"": version}

    def visit(self, node: NodeProto) -> None:
        """Append what stands for a node of the source."""
        extension = extension_of(node, self.version)
        node = _plain(node, self._alias)
        listed = node.op_type in SEQUENCES or not self.sequences.keys().isdisjoint(node.input)
        if any(not self._has_come(name) for name in filter(None, node.input)):
            self._skip(node)  # it reads what a node with a problem gives
            return
        if listed and not [*subgraphs(node)]:
            self._check(node)
            self._try(take_apart, node)
            return
        if [*subgraphs(node)]:
            self._try(write_out, node)
            return
        if node.op_type == "Constant":
            self._constant_node(node)
            return
        if extension is None:
            self._check(node)
        try:
            for each in (extension or to_our_opset)(node, self.version, self):
                self.append(each)
        except UnsupportedError as error:
            self.problems.append((node, error.what))

    def _try(self, form: Callable[[Walk, NodeProto], None], node: NodeProto) -> None:
        try:
            form(self, node)
        except UnsupportedError as error:
            self.problems.append((node, error.what))

    def _has_come(self, name: str) -> bool:
        return name in self.worlds[0].types or name in self.sequences

    def _check(self, node: NodeProto) -> None:
        try:
            onnx.checker.check_node(node, self._rules)
        except onnx.checker.ValidationError as error:
            raise ModelError(f"{label(node)} is invalid: {_reason(error)}.") from error

    def _skip(self, node: NodeProto) -> None:
        self.problems.append((node, ""))

    def _constant_node(self, node: NodeProto) -> None:
        given = attributes(node)
        (key, value), *_ = given.items() or [("", None)]
        if isinstance(value, TensorProto):
            self.tensor(node.output[0], value)
            return
        dtypes = {"value_int": np.int64, "value_ints": np.int64, "value_float": np.float32}
        dtypes["value_floats"] = np.float32
        if key not in dtypes:
            self.problems.append((node, f"holds a {key or 'nothing'}, which no network needs"))
            return
        self.tensor(node.output[0], numpy_helper.from_array(np.asarray(value, dtypes[key])))

    def append(self, node: NodeProto) -> None:
        """Append a node of our opset, or what is left of it. Raises UnsupportedError."""
        node = _plain(node, self._alias)
        if node.op_type == "Identity":
            self._identity(node)
            return
        if node.op_type == "Cast" and attributes(node).get("to") == self.dtype(node.input[0]):
            self.rename(node.output[0], node.input[0])
            return
        if node.op_type == "Transpose" and self._transpose(node):
            return
        if node.op_type == "Reshape" and self.fixed:
            keep_batch(node, self.worlds, self.fresh)
        if node.op_type == "Resize":
            self._settle(node)
            if self.bent.isdisjoint(node.input):
                only_other_axes(node, self.worlds, self.fresh)
        self._infer(node)
        if node.op_type == "ConstantOfShape" and self._fill(node):
            return
        if foldable(node, self.weights) and self._fold(node):
            return
        if self.fixed:
            self._check_batch(node)
        self._check_ranks(node)
        for name in node.output:
            self._producers[name] = node
        self.nodes.append(node)

    def _settle(self, node: NodeProto) -> None:
        """Let a Resize read constants where its region, scales or sizes are made of nothing else.

        Floating-point constants among them may look like weights, which no other fold uses up.
        """
        for place in range(1, len(node.input)):
            name = node.input[place]
            if name and name not in self.worlds[0].known and self._computable(name, DEPTH):
                node.input[place] = self.fresh(name)
                for world in self.worlds:
                    world.know(node.input[place], world.known[name])

    def _computable(self, name: str, depth: int) -> bool:
        """Whether a value is known now: it was, or constants alone gave it in up to `depth` nodes."""
        if name in self.worlds[0].known:
            return True
        node = self._producers.get(name)
        if node is None or not depth or not foldable(node, ()):
            return False
        return all(self._computable(read, depth - 1) for read in node.input if read) and self._fold(node)

    def _check_ranks(self, node: NodeProto) -> None:
        """Refuse what has as many axes as the data say; nothing that reads it is looked at."""
        for name in filter(None, node.output):
            if any(not world.types[name].tensor_type.HasField("shape") for world in self.worlds):
                for world in self.worlds:
                    del world.types[name]
                raise UnsupportedError(f"{label(node)} gives a tensor whose number of axes the data compute.")

    def _identity(self, node: NodeProto) -> None:
        """It only renames. Of a weight it may be the copy that an exporter made of two equal tensors."""
        source, name = node.input[0], node.output[0]
        if source in self.weights:
            self.copies[name] = source
            self.weights.add(name)
            for world in self.worlds:
                world.types[name] = world.types[source]
                if source in world.known:
                    world.known[name] = world.known[source]
        else:
            self._alias[name] = source

    def _transpose(self, node: NodeProto) -> bool:
        """Whether it only undoes the transposition before it; one that does not is joined with it."""
        before = self._producers.get(node.input[0])
        if before is None or before.op_type != "Transpose":
            return False
        rank = self.rank(node.input[0])
        default = list(reversed(range(rank)))
        first, second = (attributes(n).get("perm", default) for n in (before, node))
        joined = [first[axis] for axis in second]
        if joined == sorted(joined):
            self._alias[node.output[0]] = before.input[0]
            return True
        del node.attribute[:]
        node.attribute.append(helper.make_attribute("perm", joined))
        node.input[0] = before.input[0]
        return False

    def _check_batch(self, node: NodeProto) -> None:
        shapes = {
            name: shown([world.dims(name) for world in self.worlds], [world.batch for world in self.worlds])
            for name in (*node.input, *node.output)
            if name
        }
        axis = self.known(node.input[1]) if node.op_type == "CumSum" else None
        check_apart(node, shapes, None if axis is None else int(axis.reshape(-1)[0]))

    def _infer(self, node: NodeProto) -> None:
        """The types of a node's outputs in each world. Raises ModelError."""
        schema = onnx.defs.get_schema(node.op_type, OPSET, "")
        for world in self.worlds:
            data = {
                name: numpy_helper.from_array(world.known[name])
                for name in node.input
                if name in world.known and world.known[name].size <= FEW and name not in self.bent
            }
            types = {name: world.types[name] for name in node.input if name}
            try:
                inferred = onnx.shape_inference.infer_node_outputs(
                    schema, node, types, data, opset_imports=_IMPORTS, ir_version=IR_VERSION
                )
                check_channels(node, world.dims)
            except (onnx.shape_inference.InferenceError, onnx.checker.ValidationError, RuntimeError) as error:
                raise self._invalid(node, world, _reason(error)) from error
            except ModelError as error:
                raise self._invalid(node, world, error.what) from error
            for name in filter(None, node.output):
                type_ = inferred.get(name)
                if type_ is None or not type_.tensor_type.elem_type:
                    raise ModelError(f"the type of the output of {label(node)} can't be inferred.")
                world.types[name] = type_
                dims = [d.dim_value for d in type_.tensor_type.shape.dim]
                if any(d < 0 for d in dims) or math.prod(dims) > LARGEST_VALUE:
                    raise ModelError(f"{label(node)} gives the shape {dims}, which is beyond any memory.")

    def _invalid(self, node: NodeProto, world: World, why: str) -> ModelError:
        """The error of a node that does not fit what it reads: for any batch, or perhaps for others only."""
        if self.fixed:
            return BatchDependence(f"{label(node)} fits only a batch of {self.worlds[0].batch}")
        return ModelError(f"{label(node)} is invalid: {why}.")

    def _fold(self, node: NodeProto) -> bool:
        """Compute a node whose inputs are constants, or whose output only a shape decides."""
        results: list[list[Array]] = []
        for world in self.worlds:
            found = fold(node, world.known, [world.dims(name) for name in node.output if name], world.types)
            if found is None:
                return False
            results.append(found)
        bent = bends(node, self.worlds, results, self.bent)
        for world, arrays in zip(self.worlds, results, strict=True):
            for name, array in zip(node.output, arrays, strict=True):
                if name:
                    inferred = world.types[name]
                    world.know(name, array)
                    if bent:
                        self.bent.add(name)
                        world.types[name] = inferred
        self.origins.update((name, node) for name in node.output if name)
        return True

    def _fill(self, node: NodeProto) -> bool:
        """A ConstantOfShape of a constant shape is a tensor without data, and may be a parameter."""
        name = node.output[0]
        sizes, *others = (world.dims(name) for world in self.worlds)
        if sizes is None or any(other != sizes for other in others) or self._is_small(name, sizes):
            return False
        if math.prod(sizes) > LARGEST_TENSOR:
            raise ModelError(f"{label(node)} makes a tensor {list(sizes)}, more than any model can hold.")
        value = attributes(node).get("value")
        self.filled[name] = np.zeros(1, np.float32) if value is None else numpy_helper.to_array(value)
        self.weights.add(name)
        return True

    def _is_small(self, name: str, sizes: Dims) -> bool:
        """Whether a constant is one that shape computations may use up."""
        count = math.prod(sizes)
        return count <= 1 or (
            count <= FEW and self.dtype(name) not in (TensorProto.FLOAT, TensorProto.DOUBLE)
        )


def _plain(node: NodeProto, alias: dict[str, str]) -> NodeProto:
    """A copy of a node that reads what its inputs stand for, without what computes nothing."""
    copy = renamed(node, alias)
    copy.domain = ""
    copy.ClearField("doc_string")
    copy.ClearField("metadata_props")
    return copy


def _reason(error: Exception) -> str:
    """ONNX's own words in one line."""
    return " ".join(str(error).split())[:300].rstrip(".")
