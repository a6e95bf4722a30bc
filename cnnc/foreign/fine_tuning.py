"""Fine-tuning: which parameters are trained, from which values, and with which classes."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import onnx
from onnx import GraphProto, NodeProto, TensorProto, numpy_helper

from cnnc.errors import ModelError, UsageError, did_you_mean
from cnnc.foreign.protos import attributes, label
from cnnc.foreign.reading import Foreign
from cnnc.initial import draw
from cnnc.ir import Network, Parameter
from cnnc.patterns import few, matching


def select(network: Network, train: str | None, freeze: str | None) -> list[str]:
    """Leave only the parameters to be trained that `train` matches and `freeze` does not. Returns notes.

    Both are regular expressions that a parameter's whole name must match. Raises UsageError where one is
    none, or matches nothing, or where nothing is left to train.
    """
    trained = {name for name, p in network.parameters.items() if p.kind != "statistic" and p.trainable}
    if train is not None:
        trained = set(matching("--train", train, sorted(trained)))
    if freeze is not None:
        trained = trained - set(matching("--freeze", freeze, sorted(trained)))
    if not trained:
        raise UsageError("--freeze leaves nothing to train.", hint="Freeze less.")
    notes = []
    for name, parameter in network.parameters.items():
        if parameter.kind != "statistic":
            network.parameters[name] = replace(parameter, trainable=name in trained)
    if train is not None or freeze is not None:
        total = sum(p.kind != "statistic" for p in network.parameters.values())
        notes.append(f"{len(trained)} of {total} parameters are trained.")
    return notes


def freeze_statistics(network: Network) -> None:
    """Let batch normalisation use, in training too, the running statistics that the source has."""
    for name, parameter in network.parameters.items():
        if parameter.kind == "statistic":
            network.parameters[name] = replace(parameter, trainable=False)


def initialise_from(network: Network, other: Foreign) -> list[str]:
    """Give parameters the values that tensors of another model have, by name and shape. Returns notes.

    Raises ModelError where none fits.
    """
    tensors: dict[str, tuple[tuple[int, ...], Callable[[Parameter], object]]] = {}
    for name, array in other.arrays.items():
        tensors[name] = array.shape, lambda _, array=array: array  # type: ignore[misc]
    for value in other.graph.input[1:]:
        if value.name in other.drawn:
            dims = tuple(d.dim_value for d in value.type.tensor_type.shape.dim)
            tensors[value.name] = (
                dims,
                lambda p, how=other.drawn[value.name]: draw(  # type: ignore[misc]
                    how, p.type.dims, p.type.dtype.numpy(), 0, p.name
                ),
            )
    for tensor in other.graph.initializer:
        tensors[tensor.name] = (
            tuple(tensor.dims),
            lambda _, tensor=tensor: numpy_helper.to_array(tensor),  # type: ignore[misc]
        )
    matched, shaped = [], []
    for name, parameter in network.parameters.items():
        if name in tensors:
            dims, values = tensors[name]
            if dims == parameter.type.dims:
                array = np.asarray(values(parameter), parameter.type.dtype.numpy())
                network.values[name] = array
                network.parameters[name] = replace(parameter, initial={"kind": "stored"})
                matched.append(name)
            else:
                shaped.append(f"{name} {list(parameter.type.dims)} (there {list(dims)})")
    if not matched:
        nearest = did_you_mean(next(iter(network.parameters), ""), tensors) if tensors else ""
        raise ModelError(
            "no tensor of this model has the name and shape of a parameter.",
            where=str(other.path),
            hint=nearest,
        )
    absent = [name for name in network.parameters if name not in tensors]
    notes = [f"{len(matched)} of {len(network.parameters)} parameters begin as in {other.path}."]
    notes += [f"not taken, of another shape: {few(shaped)}."] if shaped else []
    notes += [f"not in {other.path.name}: {few(absent)}."] if absent else []
    return notes


def with_classes(foreign: Foreign, classes: int, output: int = 0) -> tuple[Foreign, list[str]]:
    """The model with a new last layer of `classes` outputs, initialised, under the old names. And notes.

    It is the last layer before the model's output of this number, `output`.

    The last layer is the last Gemm, MatMul or 1×1 Conv, with nothing after it but activations, reshapes and
    pools. Its weight is drawn from U(-b, b) with b = 1/√inputs, as PyTorch draws it; its bias is 0. Raises
    ModelError where there is no such layer.
    """
    graph = GraphProto()
    graph.CopyFrom(foreign.graph)
    layer, bias = _last_layer(graph, foreign, graph.output[output].name)
    weight = layer.input[1]
    if sum(name == weight for node in graph.node for name in node.input) > 1:
        raise ModelError(
            f"the last layer, {label(layer)}, shares its weight '{weight}' with others.",
            where=str(foreign.path),
            hint="--classes needs a last layer of its own.",
        )
    dims = _sizes(graph, weight)
    axis = _class_axis(layer)
    before, inputs = dims[axis], math.prod(dims) // dims[axis]
    _resize(graph, weight, axis, classes)
    drawn = {**foreign.drawn, weight: {"kind": "uniform", "bound": 1.0 / math.sqrt(inputs)}}
    names = {weight}
    if bias:
        matching = [i for i, d in enumerate(_sizes(graph, bias)) if d == before]
        if matching:  # else it is one number for all classes
            _resize(graph, bias, matching[-1], classes)
            drawn[bias] = {"kind": "constant", "value": 0.0}
            names.add(bias)
    _retell(graph, layer, before, classes)
    arrays = {name: array for name, array in foreign.arrays.items() if name not in names}
    note = (
        f"{label(layer)} has {classes} outputs instead of {before}, drawn anew: {', '.join(sorted(names))}."
    )
    return replace(foreign, graph=graph, arrays=arrays, drawn=drawn), [note]


_THROUGH = {
    "Add", "AveragePool", "Dropout", "Flatten", "GlobalAveragePool", "GlobalMaxPool", "LogSoftmax", "MaxPool",
    "ReduceMean", "Relu", "Reshape", "Resize", "Sigmoid", "Softmax", "Squeeze",
}  # fmt: skip


def _last_layer(graph: GraphProto, foreign: Foreign, output: str) -> tuple[NodeProto, str]:
    """The layer that gives the classes, and the name of its bias (empty where it has none)."""
    producers = {name: node for node in graph.node for name in node.output}
    tensors = foreign.arrays.keys() | foreign.drawn.keys() | {t.name for t in graph.initializer}
    node, bias = producers.get(output), ""
    while node is not None:
        if node.op_type in ("Gemm", "MatMul", "Conv") and node.input[1] in tensors:
            if node.op_type == "Conv" and any(d != 1 for d in _sizes(graph, node.input[1])[2:]):
                break
            if len(node.input) > 2 and node.input[2]:
                bias = node.input[2]
            return node, bias
        if node.op_type not in _THROUGH:
            break
        first = node.input[0]
        if node.op_type == "Add":
            constants = [name for name in node.input if name in tensors]
            if len(constants) != 1:
                break
            bias = constants[0]
            first = next(name for name in node.input if name != bias)
        node = producers.get(first)
    found = f": before its output comes {label(node)}" if node is not None else ""
    raise ModelError(
        f"the model does not end in a layer whose outputs are its classes{found}.",
        where=str(foreign.path),
        hint="--classes replaces a last Gemm, MatMul or 1×1 Conv.",
    )


def _class_axis(layer: NodeProto) -> int:
    """The axis of the weight that counts the outputs."""
    if layer.op_type == "Conv":
        return 0
    return 0 if layer.op_type == "Gemm" and attributes(layer).get("transB", 0) else -1


def _sizes(graph: GraphProto, name: str) -> list[int]:
    for value in graph.input:
        if value.name == name:
            return [d.dim_value for d in value.type.tensor_type.shape.dim]
    return next((list(t.dims) for t in graph.initializer if t.name == name), [])


def _resize(graph: GraphProto, name: str, axis: int, size: int) -> None:
    """Give a tensor another size along an axis; a small one becomes an input, as large ones are."""
    for index, tensor in enumerate(graph.initializer):
        if tensor.name == name:
            graph.input.append(onnx.helper.make_tensor_value_info(name, tensor.data_type, list(tensor.dims)))
            del graph.initializer[index]
            break
    value = next(value for value in graph.input if value.name == name)
    value.type.tensor_type.shape.dim[axis].dim_value = size


def _retell(graph: GraphProto, layer: NodeProto, before: int, after: int) -> None:
    """Correct what the graph says of shapes behind the layer, and the targets of Reshapes there.

    Other axes may have as many elements as there were classes: those of a Conv are on the first axis behind
    the batch, those of a product on the last.
    """
    behind = set(layer.output)
    targets = set()
    for node in graph.node:
        if behind.intersection(node.input):
            behind.update(node.output)
            if node.op_type == "Reshape":
                targets.add(node.input[1])

    def place(sizes: list[int]) -> int | None:
        found = [axis for axis, size in enumerate(sizes) if axis and size == before]
        return found[0 if layer.op_type == "Conv" else -1] if found else None

    for value in (*graph.value_info, *graph.output):
        dims = value.type.tensor_type.shape.dim
        if value.name in behind and (axis := place([d.dim_value for d in dims])) is not None:
            dims[axis].dim_value = after
    for tensor in graph.initializer:
        if tensor.name in targets and tensor.data_type == TensorProto.INT64:
            array = numpy_helper.to_array(tensor).copy()
            if (axis := place(array.tolist())) is not None:
                array[axis] = after
                tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
