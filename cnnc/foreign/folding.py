"""Computing shapes and small constants ahead, node by node, with ONNX's own reference operators."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import NodeProto, TypeProto, helper
from onnx.reference import ReferenceEvaluator

from cnnc.opset import IR_VERSION, OPSET

Array = npt.NDArray[Any]
FEW = 4096
"""Elements that a constant may have to be computed with."""

_RANDOM = {
    "RandomNormal",
    "RandomNormalLike",
    "RandomUniform",
    "RandomUniformLike",
    "Bernoulli",
    "Multinomial",
}
_NEVER = _RANDOM | {"Dropout", "BatchNormalization"}


def foldable(node: NodeProto, weights: Collection[str]) -> bool:
    """Whether equal inputs always give equal outputs, and no weight would go into them."""
    if node.op_type in _NEVER:
        return False
    return node.op_type in ("Shape", "Size") or not any(name in weights for name in node.input)


def fold(
    node: NodeProto,
    known: Mapping[str, Array],
    sizes: Sequence[tuple[int, ...] | None],
    types: Mapping[str, TypeProto],
) -> list[Array] | None:
    """The outputs of a node, where all that it reads is known and they are small; else None.

    `sizes` are those of its outputs, as far as they can be told beforehand: what is too large to be worth it
    (or made to exhaust the memory) is never computed.
    """
    if any(size is not None and math.prod(size) > FEW for size in sizes):
        return None
    if node.op_type in ("Shape", "Size"):
        return _shape(node, types[node.input[0]])
    if any(name and name not in known for name in node.input):
        return None
    names = [name for name in node.input if name]
    graph = helper.make_graph(
        [node],
        "fold",
        [helper.make_value_info(name, types[name]) for name in dict.fromkeys(names)],
        [onnx.ValueInfoProto(name=name) for name in node.output if name],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
    with np.errstate(all="ignore"):
        try:
            results = ReferenceEvaluator(model).run(None, {name: known[name] for name in names})
        except Exception:  # a node that the reference can't compute stays a node
            return None
    arrays = [np.asarray(result) for result in results]
    return arrays if len(arrays) == len(node.output) else None


def _shape(node: NodeProto, type_: TypeProto) -> list[Array] | None:
    dims = [d.dim_value if d.HasField("dim_value") else -1 for d in type_.tensor_type.shape.dim]
    given = {item.name: item.i for item in node.attribute}
    dims = dims[given.get("start", 0) : given.get("end", len(dims))]
    if -1 in dims:
        return None
    return [np.asarray(dims if node.op_type == "Shape" else math.prod(dims), np.int64)]
