"""Older and newer forms of operators, written with those of our opset: one table, one function a form.

A function takes a node of the source's opset and returns the nodes that stand for it, or None where the node
is as our opset has it. Where the meaning of an operator never changed there is nothing to do.
"""

from __future__ import annotations

import onnx
from onnx import NodeProto

from cnnc.foreign import newer_forms as newer
from cnnc.foreign import older_forms as older
from cnnc.foreign import window_forms as windows
from cnnc.foreign.emit import Emit, Facts, Form
from cnnc.foreign.protos import attributes
from cnnc.opset import OPSET


def to_our_opset(node: NodeProto, version: int, facts: Facts) -> list[NodeProto]:
    """The nodes of our opset that do what `node` does in opset `version`. Raises UnsupportedError."""
    emit = Emit(node, version, facts, attributes(node))
    for until, op_types, form in (*FORMS, *BESIDE):
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


_REDUCTIONS = (
    "ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd ReduceSumSquare"
)

FORMS: list[tuple[int, tuple[str, ...], Form]] = [
    (10, ("Slice",), older.slice_),
    (10, ("TopK",), older.top_k),
    (11, ("Clip",), older.clip),
    (11, ("Pad",), older.pad),
    (11, ("Scatter",), older.scatter),
    (11, ("Resize",), older.resize_10),
    (10, ("Upsample",), older.upsample),
    (13, ("Squeeze", "Unsqueeze", "ReduceSum"), older.axes_to_input),
    (13, ("Softmax", "LogSoftmax", "Hardmax"), older.softmax),
    (18, ("Split",), older.split),
    (18, tuple(_REDUCTIONS.split()), older.axes_to_input),
    (0, ("BatchNormalization",), older.batch_normalization),
    (0, ("Celu",), newer.celu),
    (0, ("Dropout",), older.dropout),
    (0, ("Conv",), windows.conv),
    (0, ("Squeeze",), older.squeeze),
    (0, ("GroupNormalization",), newer.group_normalization),
    (0, ("MeanVarianceNormalization",), newer.mean_variance_normalization),
    (0, ("Resize",), newer.resize),
    (0, ("AveragePool", "LpPool", "MaxPool"), windows.pool),
    (0, ("CastLike",), newer.cast_like),
    (19, ("Cast",), newer.without("saturate", "round_mode")),
    (0, ("Pad",), newer.wrap),
    (20, ("Gelu",), newer.gelu),
    (20, ("GridSample",), newer.grid_sample),
    (23, ("RMSNormalization",), newer.rms_normalization),
    (24, ("Swish",), newer.swish),
    (28, ("SpaceToDepth",), newer.space_to_depth),
]
"""Version, operators and form. A version up to ours: the form of all before it (0: of all, whatever their
version). A later one: the form of this and all after it.
"""

BESIDE: list[tuple[int, tuple[str, ...], Form]] = [
    (16, ("RoiAlign",), older.roi_align),
    (20, ("DFT",), newer.dft),
]
"""Forms of operators that have no gradient, so that they stand where none has to pass."""
