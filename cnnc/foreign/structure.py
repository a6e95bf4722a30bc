"""Whether a foreign file is a model at all: sizes, data, names and order. Runs in the child process."""

from __future__ import annotations

import math
import os
import stat
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath

import onnx
from onnx import GraphProto, ModelProto, NodeProto, TensorProto

from cnnc.errors import ModelError
from cnnc.foreign.extensions import extension_of
from cnnc.foreign.protos import DOMAINS, all_nodes, all_tensors, label, reads, subgraphs

OLDEST = 7
LARGEST_FILE = 2**31 - 1
LARGEST_GRAPH = 200_000
"""Nodes that a model may have with its functions inlined."""
LARGEST_TENSOR = 2**29 - 1
"""Elements that a tensor may have: an ONNX file holds less than 2 GiB."""


def parse(path: Path) -> ModelProto:
    """Read a model without its external data, and check everything that later steps rely on."""
    if path.stat().st_size > LARGEST_FILE:
        raise ModelError("the file is larger than 2 GiB, more than an ONNX file can be.")
    model = ModelProto()
    try:
        model.ParseFromString(path.read_bytes())
    except Exception as error:  # protobuf's DecodeError, which is no part of its public names
        raise ModelError(
            "this is no whole ONNX model: it is truncated, damaged or of another format.",
            hint="Copy or export it again.",
        ) from error
    if not model.graph.node:
        raise ModelError("this file holds no ONNX graph: it has no nodes.")
    _check_opset(model)
    _check_functions(model)
    _check_tensors(model, path.parent)
    return model


def opset_of(model: ModelProto) -> int:
    """The version of the standard operators that a model uses."""
    return max((item.version for item in model.opset_import if item.domain in DOMAINS), default=0)


def _check_opset(model: ModelProto) -> None:
    version, newest = opset_of(model), onnx.defs.onnx_opset_version()
    if not version:
        raise ModelError("the model does not say which opset it uses.", hint="Export it again.")
    if not OLDEST <= version <= newest:
        raise ModelError(
            f"the model uses opset {version}; cnnc reads {OLDEST} to {newest}.",
            hint=f"Export it again with an opset in this range, such as {newest - 8}.",
        )


def _check_functions(model: ModelProto) -> None:
    """Refuse model-local functions that call themselves, or that are too many nodes once they are inlined."""
    functions = {(function.domain, function.name): function for function in model.functions}
    sizes: dict[tuple[str, str], int | None] = {}  # None while those that it calls are counted

    def size(nodes: Iterable[NodeProto]) -> int:
        return sum(sizes.get((node.domain, node.op_type)) or 1 for node in all_nodes(nodes))

    for root in functions:
        waiting = [root]
        while waiting:
            key = waiting[-1]
            called = {
                (node.domain, node.op_type) for node in all_nodes(functions[key].node)
            } & functions.keys()
            fresh = [each for each in called if each not in sizes]
            if key in sizes and not fresh:
                sizes[key] = size(functions[key].node) if sizes[key] is None else sizes[key]
                waiting.pop()
                continue
            sizes[key] = sizes.get(key)
            if any(each in sizes and sizes[each] is None for each in called):
                raise ModelError(f"the model-local function {key[0]}.{key[1]} calls itself.")
            waiting += fresh
    if functions and (total := size(model.graph.node)) > LARGEST_GRAPH:
        raise ModelError(f"the model-local functions unfold to {total:,} nodes, more than any network has.")


def _check_tensors(model: ModelProto, folder: Path) -> None:
    if any(True for _ in model.graph.sparse_initializer):
        raise ModelError("the model has sparse initializers, which can't be trained.")
    total = 0
    for tensor, what in all_tensors(model):
        size = element_size(tensor, what)
        if any(d < 0 for d in tensor.dims) or math.prod(tensor.dims) > LARGEST_TENSOR:
            raise ModelError(f"{what} claims the shape {list(tensor.dims)}: no tensor of up to 2 GiB has it.")
        needed = math.prod(tensor.dims) * size
        total += needed
        if tensor.data_location == TensorProto.EXTERNAL:
            external_region(tensor, what, folder, needed)
        elif tensor.HasField("raw_data") and len(tensor.raw_data) != math.ceil(needed):
            raise ModelError(
                f"{what} has {len(tensor.raw_data):,} bytes of data for the shape {list(tensor.dims)}, "
                f"which takes {math.ceil(needed):,}.",
                hint="The file is damaged: copy or export it again.",
            )
        elif not tensor.HasField("raw_data"):
            _check_typed_data(tensor, what)
    if total > LARGEST_FILE:
        raise ModelError(f"the model's tensors take {total / 2**30:.1f} GiB; cnnc reads up to 2 GiB.")


def element_size(tensor: TensorProto, what: str) -> float:
    """Bytes that an element of a tensor takes (half a byte for 4-bit types)."""
    if tensor.data_type == TensorProto.STRING:
        return 0
    try:
        name = TensorProto.DataType.Name(tensor.data_type)
        dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)
    except (KeyError, ValueError):
        raise ModelError(f"{what} has the unknown element type {tensor.data_type}.") from None
    bits = 4 if "4E2M1" in name or name.endswith("INT4") else 2 if name.endswith("INT2") else 0
    return bits / 8 if bits else dtype.itemsize


def _check_typed_data(tensor: TensorProto, what: str) -> None:
    field = onnx.helper.tensor_dtype_to_field(tensor.data_type)
    have, count = len(getattr(tensor, field)), math.prod(tensor.dims)
    name = TensorProto.DataType.Name(tensor.data_type)
    if name.startswith("COMPLEX"):
        count *= 2
    if have != count and not name.endswith(("INT4", "INT2", "4E2M1")):
        raise ModelError(
            f"{what} has {have:,} numbers for the shape {list(tensor.dims)}.",
            hint="The file is damaged: copy or export it again.",
        )


def external_region(tensor: TensorProto, what: str, folder: Path, needed: float) -> tuple[Path, int, int]:
    """File, offset and length of a tensor's external data, which must lie in the model's own folder."""
    entries = {item.key: item.value for item in tensor.external_data}
    location = entries.get("location", "")

    def refuse(why: str) -> ModelError:
        return ModelError(
            f"{what} has its data in the file {location!r}, {why}.",
            hint="External data must be a plain file in the model's own folder or below it.",
        )

    posix, windows = PurePosixPath(location), PureWindowsPath(location)
    if not location or "\0" in location:
        raise refuse("which is no file name")
    if posix.is_absolute() or windows.drive or windows.root:
        raise refuse("an absolute path")
    if ".." in posix.parts or ".." in windows.parts:
        raise refuse("which leads out of the model's folder")
    path = folder
    for part in posix.parts:
        path = path / part
        if path.is_symlink():
            raise refuse("a symbolic link")
    try:
        status = os.lstat(path)
    except OSError as error:
        raise refuse(f"which can't be read: {error.strerror}") from None
    if not stat.S_ISREG(status.st_mode):
        raise refuse("which is no plain file")
    if status.st_nlink != 1:
        raise refuse("which is a hard link to a file that may lie elsewhere")
    try:
        offset, length = int(entries.get("offset") or 0), int(entries.get("length") or math.ceil(needed))
    except ValueError:
        raise refuse("with an offset or length that is no number") from None
    if length != math.ceil(needed) or offset < 0 or offset + length > status.st_size:
        raise refuse(
            f"as {length:,} bytes from {offset:,}; the file has {status.st_size:,}, "
            f"and the shape {list(tensor.dims)} takes {math.ceil(needed):,}"
        )
    return path, offset, length


def needed_nodes(graph: GraphProto, outputs: Sequence[str]) -> list[NodeProto]:
    """The nodes that `outputs` depend on, each after all that it reads. Raises ModelError.

    That is where cycles, names given twice and names that nothing gives are found.
    """
    nodes = list(graph.node)
    producers: dict[str, int] = {}
    given = {value.name for value in graph.input} | {tensor.name for tensor in graph.initializer}
    for place, node in enumerate(nodes):
        for name in filter(None, node.output):
            if name in producers or name in given:
                raise ModelError(f"{label(node)} gives '{name}', which the graph has already.")
            producers[name] = place
    order: list[int] = []
    placed: dict[int, bool] = {}  # False while what a node reads is being visited
    stack: list[tuple[int | None, str, str]] = [
        (producers.get(name), name, "the graph's outputs have") for name in reversed(outputs)
    ]
    while stack:
        index, name, reader = stack.pop()
        if index is None:
            if name not in given:
                raise ModelError(f"{reader} '{name}', which nothing in the model gives.")
        elif not name:
            placed[index] = True
            order.append(index)
        elif index not in placed:
            placed[index] = False
            stack.append((index, "", ""))
            node, local = nodes[index], _inner_names(nodes[index])
            stack += [
                (producers.get(read), read, f"{label(node)} reads")
                for read in reversed([*reads(node)])
                if read not in local
            ]
        elif not placed[index]:
            raise ModelError(f"the graph has a cycle: {label(nodes[index])} depends on its own output.")
    position = {index: place for place, index in enumerate(sorted(order))}
    in_file_order = all(
        position[producers[read]] < position[index]
        for index in order
        for read in reads(nodes[index])
        if read in producers
    )
    return [nodes[index] for index in (sorted(order) if in_file_order else order)]


def _inner_names(node: NodeProto) -> set[str]:
    """Names that a node's subgraphs give themselves."""
    names: set[str] = set()
    for each in all_nodes([node]):
        for graph in subgraphs(each):
            names |= {value.name for value in (*graph.input, *graph.initializer)}
            names |= {name for inner in graph.node for name in inner.output}
    return names


def unknown_operators(model: ModelProto) -> dict[str, str]:
    """Operators that no opset of ONNX has at the model's version, with the first node of each."""
    version, found = opset_of(model), dict[str, str]()
    for node in all_nodes(model.graph.node):
        name = node.op_type if node.domain in DOMAINS else f"{node.domain}.{node.op_type}"
        if extension_of(node, version):
            continue
        if node.domain in DOMAINS:
            try:
                if not onnx.defs.get_schema(node.op_type, version, "").deprecated:
                    continue
            except onnx.defs.SchemaError:
                pass
        found.setdefault(name, label(node))
    return found
