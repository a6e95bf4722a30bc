"""Older and newer forms of operators, written with those of our opset: one table, one function a form.

A function takes a node of the source's opset and returns the nodes that stand for it, or None where the node
is as our opset has it. Where the meaning of an operator never changed there is nothing to do.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import onnx
from onnx import NodeProto, helper

from cnnc.errors import UnsupportedError
from cnnc.foreign.protos import attributes, label
from cnnc.opset import OPSET


class Facts(Protocol):
    """What is known of the values that a node reads."""

    def rank(self, name: str) -> int:
        """Number of dimensions."""

    def dtype(self, name: str) -> int:
        """Element type."""

    def is_empty(self, name: str) -> bool:
        """Whether it is a constant without elements."""

    def constant(self, array: npt.NDArray[Any]) -> str:
        """The name of a constant."""

    def fresh(self, name: str) -> str:
        """A new name like `name`."""


@dataclass
class Emit:
    """One node under rewriting, and the nodes that replace it."""

    node: NodeProto
    version: int
    facts: Facts
    attributes: dict[str, Any]
    nodes: list[NodeProto] = field(default_factory=list)

    def op(self, op_type: str, *inputs: str | npt.NDArray[Any], **attributes: Any) -> str:
        """Append a node with one output and return its name; arrays become constants."""
        output = self.facts.fresh(self.node.output[0])
        self.put(op_type, inputs, [output], **attributes)
        return output

    def put(
        self,
        op_type: str,
        inputs: Sequence[str | npt.NDArray[Any]],
        outputs: Sequence[str] | None = None,
        **attributes: Any,
    ) -> list[NodeProto]:
        """Append the node that gives the source's own outputs, and return all nodes."""
        names = [name if isinstance(name, str) else self.facts.constant(name) for name in inputs]
        while names and not names[-1]:
            names.pop()
        kept = {key: value for key, value in attributes.items() if value is not None}
        outputs = list(outputs or self.node.output)
        name = self.node.name if outputs[0] == self.node.output[0] else outputs[0]
        node = helper.make_node(op_type, names, outputs, name, **kept)
        self.nodes.append(node)
        return self.nodes

    def input(self, index: int) -> str:
        """The name of input `index`, empty where it is absent."""
        return self.node.input[index] if index < len(self.node.input) else ""

    def unsupported(self, what: str) -> UnsupportedError:
        """The error of a form that our opset can't say."""
        return UnsupportedError(f"{label(self.node)} of opset {self.version} {what}.")

    def typed(self, number: float) -> npt.NDArray[Any]:
        """A scalar of the first input's element type."""
        return np.asarray(number, helper.tensor_dtype_to_np_dtype(self.facts.dtype(self.node.input[0])))


Form = Callable[[Emit], list[NodeProto] | None]


def to_our_opset(node: NodeProto, version: int, facts: Facts) -> list[NodeProto]:
    """The nodes of our opset that do what `node` does in opset `version`. Raises UnsupportedError."""
    emit = Emit(node, version, facts, attributes(node))
    for until, op_types, form in FORMS:
        applies = not until or (version < until if until <= OPSET else version >= until)
        if node.op_type in op_types and applies and (result := form(emit)) is not None:
            return result
    try:
        schema = onnx.defs.get_schema(node.op_type, OPSET, "")
    except onnx.defs.SchemaError:
        raise emit.unsupported(f"has no form in opset {OPSET}, which cnnc writes") from None
    if unknown := sorted(emit.attributes.keys() - schema.attributes.keys()):
        raise emit.unsupported(f"has the attribute {unknown[0]}, which opset {OPSET} does not know")
    return [node]


def _integers(values: Any) -> npt.NDArray[Any]:
    return np.asarray(values, np.int64)


# Older forms: attributes that became inputs, and meanings that changed.


def _axes_to_input(emit: Emit) -> list[NodeProto] | None:
    if "axes" not in emit.attributes:
        return None
    rest = {key: value for key, value in emit.attributes.items() if key != "axes"}
    return emit.put(emit.node.op_type, [emit.input(0), _integers(emit.attributes["axes"])], **rest)


def _clip(emit: Emit) -> list[NodeProto]:
    bounds = [emit.attributes.get(key) for key in ("min", "max")]
    return emit.put("Clip", [emit.input(0), *("" if b is None else emit.typed(b) for b in bounds)])


def _slice(emit: Emit) -> list[NodeProto]:
    given = [emit.attributes.get(key) for key in ("starts", "ends", "axes")]
    return emit.put("Slice", [emit.input(0), *("" if v is None else _integers(v) for v in given)])


def _pad(emit: Emit) -> list[NodeProto]:
    pads, value = _integers(emit.attributes["pads"]), emit.typed(emit.attributes.get("value", 0.0))
    return emit.put("Pad", [emit.input(0), pads, value], mode=emit.attributes.get("mode"))


def _top_k(emit: Emit) -> list[NodeProto]:
    k = _integers([emit.attributes["k"]])
    return emit.put("TopK", [emit.input(0), k], axis=emit.attributes.get("axis"))


def _split(emit: Emit) -> list[NodeProto]:
    axis, sizes = emit.attributes.get("axis"), emit.attributes.get("split")
    if sizes is not None:
        return emit.put("Split", [emit.input(0), _integers(sizes)], axis=axis)
    if emit.input(1):
        return emit.put("Split", [emit.input(0), emit.input(1)], axis=axis)
    return emit.put("Split", [emit.input(0)], axis=axis, num_outputs=len(emit.node.output))


def _softmax(emit: Emit) -> list[NodeProto] | None:
    """Before opset 13 all axes from `axis` on were taken together."""
    x, rank = emit.input(0), emit.facts.rank(emit.input(0))
    axis = emit.attributes.get("axis", 1) % max(rank, 1)
    if axis == rank - 1:
        return emit.put(emit.node.op_type, [x], axis=-1)
    flat = emit.op(emit.node.op_type, emit.op("Flatten", x, axis=axis), axis=-1)
    return emit.put("Reshape", [flat, emit.op("Shape", x)])


def _dropout(emit: Emit) -> list[NodeProto]:
    """In inference form, with its ratio as a constant; the compiler gives it its training form."""
    if len([name for name in emit.node.output if name]) > 1:
        raise emit.unsupported("hands out its mask, which only its own output should depend on")
    ratio = emit.input(1) or np.asarray(emit.attributes.get("ratio", 0.5), np.float32)
    return emit.put("Dropout", [emit.input(0), ratio], [emit.node.output[0]])


def _batch_normalization(emit: Emit) -> list[NodeProto]:
    """In inference form; the compiler gives it its training form."""
    if not emit.attributes.get("spatial", 1):
        raise emit.unsupported("normalises each pixel (spatial = 0), which later opsets do not have")
    kept = {key: emit.attributes.get(key) for key in ("epsilon", "momentum")}
    return emit.put("BatchNormalization", emit.node.input, [emit.node.output[0]], **kept)


def _upsample(emit: Emit) -> list[NodeProto]:
    """What Resize is with asymmetric coordinates."""
    scales: Any = emit.input(1) or np.asarray(emit.attributes["scales"], np.float32)
    return _resize_10(emit, scales)


def _resize_10(emit: Emit, scales: Any = None) -> list[NodeProto]:
    return emit.put(
        "Resize",
        [emit.input(0), "", emit.input(1) if scales is None else scales],
        mode=emit.attributes.get("mode"),
        coordinate_transformation_mode="asymmetric",
        nearest_mode="floor",
    )


def _scatter(emit: Emit) -> list[NodeProto]:
    return emit.put("ScatterElements", emit.node.input, axis=emit.attributes.get("axis"))


# Forms of any opset.


def _resize(emit: Emit) -> list[NodeProto] | None:
    """Empty tensors stood for absent inputs."""
    inputs = ["" if name and emit.facts.is_empty(name) else name for name in emit.node.input]
    if emit.attributes.get("coordinate_transformation_mode") != "tf_crop_and_resize" and len(inputs) > 1:
        inputs[1] = ""
    return None if inputs == list(emit.node.input) else emit.put("Resize", inputs, **emit.attributes)


def _group_normalization(emit: Emit) -> list[NodeProto]:
    """As reshapes around InstanceNormalization. Scale and bias are one a group before opset 21, else one a
    channel.
    """
    x, scale, bias = emit.node.input
    groups, rank = emit.attributes["num_groups"], emit.facts.rank(x)
    dtype = emit.typed(0).dtype
    grouped = emit.op("Reshape", x, _integers([0, groups, -1]))
    normal = emit.op(
        "InstanceNormalization",
        grouped,
        np.ones(groups, dtype),
        np.zeros(groups, dtype),
        epsilon=emit.attributes.get("epsilon"),
    )
    by_channel = emit.version >= 21
    shape = emit.op("Shape", x)
    if by_channel:
        normal = emit.op("Reshape", normal, shape)
    axes = _integers(range(1, rank - 1 if by_channel else 2))
    scaled = emit.op("Mul", normal, emit.op("Unsqueeze", scale, axes) if len(axes) else scale)
    shift = emit.op("Unsqueeze", bias, axes) if len(axes) else bias
    if by_channel:
        return emit.put("Add", [scaled, shift])
    return emit.put("Reshape", [emit.op("Add", scaled, shift), shape])


def _mean_variance_normalization(emit: Emit) -> list[NodeProto]:
    """(x - mean) / (deviation + ε), as the function that ONNX defines it by; that one is float32 alone."""
    x, axes = emit.input(0), _integers(emit.attributes.get("axes", [0, 2, 3]))
    centred = emit.op("Sub", x, emit.op("ReduceMean", x, axes))
    variance = emit.op("ReduceMean", emit.op("Mul", centred, centred), axes)
    return emit.put("Div", [centred, emit.op("Add", emit.op("Sqrt", variance), emit.typed(1e-9))])


def _celu(emit: Emit) -> list[NodeProto]:
    """α·Elu(x/α); Barron, 2017. Celu itself is for float32 only."""
    x, alpha = emit.input(0), emit.attributes.get("alpha", 1.0)
    if alpha <= 0.0:
        raise emit.unsupported(f"has alpha={alpha:g}, which must be positive")
    return emit.put("Mul", [emit.op("Elu", emit.op("Div", x, emit.typed(alpha))), emit.typed(alpha)])


# Newer forms.


def _gelu(emit: Emit) -> list[NodeProto]:
    """x·Φ(x), or its approximation by tanh; Hendrycks and Gimpel, 2016."""
    x = emit.input(0)
    if emit.attributes.get("approximate", "none") == "tanh":
        cube = emit.op("Mul", emit.op("Mul", emit.op("Mul", x, x), x), emit.typed(0.044715))
        inner = emit.op("Mul", emit.op("Add", x, cube), emit.typed(math.sqrt(2 / math.pi)))
        share = emit.op("Tanh", inner)
    else:
        share = emit.op("Erf", emit.op("Mul", x, emit.typed(1 / math.sqrt(2))))
    half = emit.op("Mul", x, emit.typed(0.5))
    return emit.put("Mul", [half, emit.op("Add", share, emit.typed(1.0))])


def _swish(emit: Emit) -> list[NodeProto]:
    x, alpha = emit.input(0), emit.attributes.get("alpha", 1.0)
    return emit.put(
        "Mul", [x, emit.op("Sigmoid", x if alpha == 1.0 else emit.op("Mul", x, emit.typed(alpha)))]
    )


def _rms_normalization(emit: Emit) -> list[NodeProto]:
    """x / √(mean(x²) + ε) · scale over the last axes; Zhang and Sennrich, 2019."""
    x, rank = emit.input(0), emit.facts.rank(emit.input(0))
    axes = _integers(range(emit.attributes.get("axis", -1) % rank, rank))
    mean = emit.op("ReduceMean", emit.op("Mul", x, x), axes)
    root = emit.op("Sqrt", emit.op("Add", mean, emit.typed(emit.attributes.get("epsilon", 1e-5))))
    return emit.put("Mul", [emit.op("Div", x, root), emit.input(1)])


def _average_pool(emit: Emit) -> list[NodeProto] | None:
    dilations = emit.attributes.pop("dilations", None)
    if dilations is None:
        return None
    if any(d != 1 for d in dilations):
        raise emit.unsupported("has dilations, which AveragePool does not know")
    return emit.put("AveragePool", emit.node.input, **emit.attributes)


def _grid_sample(emit: Emit) -> list[NodeProto]:
    mode = emit.attributes.pop("mode", "linear")
    if emit.facts.rank(emit.input(0)) != 4:
        raise emit.unsupported("samples volumes, which GridSample does not know")
    names = {"linear": "bilinear", "cubic": "bicubic"}
    return emit.put("GridSample", emit.node.input, mode=names.get(mode, mode), **emit.attributes)


def _cast_like(emit: Emit) -> list[NodeProto]:
    """What it casts to is known, so that it depends on one value only."""
    return emit.put("Cast", [emit.input(0)], to=emit.facts.dtype(emit.input(1)))


def _without(*names: str) -> Form:
    """Attributes that only matter for element types that training does not have."""

    def form(emit: Emit) -> list[NodeProto] | None:
        if not emit.attributes.keys() & set(names):
            return None
        kept = {key: value for key, value in emit.attributes.items() if key not in names}
        return emit.put(emit.node.op_type, emit.node.input, **kept)

    return form


def _no_wrap(emit: Emit) -> None:
    if emit.attributes.get("mode") == "wrap":
        raise emit.unsupported("pads by wrapping around, which Pad does not know")


_REDUCTIONS = (
    "ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd ReduceSumSquare"
)

FORMS: list[tuple[int, tuple[str, ...], Form]] = [
    (10, ("Slice",), _slice),
    (10, ("TopK",), _top_k),
    (11, ("Clip",), _clip),
    (11, ("Pad",), _pad),
    (11, ("Scatter",), _scatter),
    (11, ("Resize",), _resize_10),
    (10, ("Upsample",), _upsample),
    (13, ("Squeeze", "Unsqueeze", "ReduceSum"), _axes_to_input),
    (13, ("Softmax", "LogSoftmax", "Hardmax"), _softmax),
    (18, ("Split",), _split),
    (18, tuple(_REDUCTIONS.split()), _axes_to_input),
    (0, ("BatchNormalization",), _batch_normalization),
    (0, ("Celu",), _celu),
    (0, ("Dropout",), _dropout),
    (0, ("GroupNormalization",), _group_normalization),
    (0, ("MeanVarianceNormalization",), _mean_variance_normalization),
    (0, ("Resize",), _resize),
    (19, ("AveragePool",), _average_pool),
    (0, ("CastLike",), _cast_like),
    (19, ("Cast",), _without("saturate", "round_mode")),
    (19, ("Pad",), _no_wrap),
    (20, ("Gelu",), _gelu),
    (20, ("GridSample",), _grid_sample),
    (23, ("RMSNormalization",), _rms_normalization),
    (24, ("Swish",), _swish),
]
"""Version, operators and form. A version up to ours: the form of all before it (0: of all, whatever their
version). A later one: the form of this and all after it.
"""
