"""Every attribute of every operator that has a gradient: rows of the table vary it, or a reason stands here.

Attributes are those that onnx's schemas list from the oldest opset that is read to the newest. What rows use
is read from the nodes that they make; forms of other opsets have rows of their own (`test_foreign_forms`).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from functools import cache
from itertools import product
from typing import Any

import numpy as np
import onnx
import pytest
from cases import CASES, Case
from cases.refused import REFUSED
from oracle import DOUBLE, differentiate, forward_graph
from test_foreign_forms import OLD

from cnnc.autodiff import RULES
from cnnc.errors import UnsupportedError
from cnnc.foreign.extensions import EXTENSIONS
from cnnc.foreign.opsets import FORMS
from cnnc.foreign.structure import OLDEST
from cnnc.ir import GRAD_OPS
from cnnc.opset import OPSET

NEWEST = onnx.defs.onnx_opset_version()

PROMISED = """
Sum Mean LRN Celu Mish HardSigmoid PRelu ThresholdedRelu Softsign LpPool GlobalLpPool DepthToSpace
SpaceToDepth InstanceNormalization GroupNormalization LayerNormalization LpNormalization
MeanVarianceNormalization GridSample Einsum CumSum Compress Tile Upsample Identity
Cast Sin Cos Log Tanh Sqrt Erf Pow Add Sub Mul Div Neg Exp Abs Reciprocal Min Max Clip Where Relu LeakyRelu
Sigmoid Gelu QuickGelu MatMul Gemm Conv ConvTranspose ReduceMean ReduceSum ReduceLogSumExp ReduceL2 Concat
Split Reshape Flatten Transpose Squeeze Unsqueeze Expand Pad Slice Trilu Gather GatherND GatherElements
ScatterND ScatterElements TopK MaxPool AveragePool GlobalAveragePool GlobalMaxPool BatchNormalization
Dropout Softmax LogSoftmax SoftmaxCrossEntropyLoss Resize Atan Elu HardSwish ReduceMax ReduceMin Selu Softplus
"""
"""What cnnc promises by name, those of onnxruntime-training's registry among them."""

WORDS: dict[str, tuple[Any, ...]] = {
    "auto_pad": ("NOTSET", "SAME_UPPER", "SAME_LOWER", "VALID"),
    "reduction": ("none", "sum", "mean"),
    "ScatterElements.reduction": ("none", "add", "mul", "max", "min"),
    "ScatterND.reduction": ("none", "add", "mul", "max", "min"),
    "direction": ("LEFT", "RIGHT"),
    "DepthToSpace.mode": ("DCR", "CRD"),
    "Pad.mode": ("constant", "edge", "reflect"),
    "Resize.mode": ("nearest", "linear", "cubic"),
    "coordinate_transformation_mode": (
        *("half_pixel", "half_pixel_symmetric", "pytorch_half_pixel", "align_corners", "asymmetric"),
        "tf_crop_and_resize",
    ),
    "nearest_mode": ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil"),
    "keep_aspect_ratio_policy": ("stretch", "not_larger", "not_smaller"),
    "GridSample.mode": ("nearest", "bilinear", "bicubic"),
    "padding_mode": ("zeros", "border", "reflection"),
}
"""Attributes of a few words in our opset, which schemas tell in prose; by operator where they differ."""

OTHER_WORDS: dict[str, tuple[str, ...]] = {
    "GridSample.mode": ("linear", "cubic"),
    "Pad.mode": ("wrap",),
    "Resize.coordinate_transformation_mode": ("tf_half_pixel_for_nn",),
    "SpaceToDepth.mode": ("DCR", "CRD"),
    "Upsample.mode": ("nearest", "linear"),
    "Gelu.approximate": ("none", "tanh"),
}
"""Those of other opsets."""

FLAGS = """
align_corners allowzero antialias ceil_mode count_include_pad detect_negative detect_positive exclude_outside
exclusive fmod keepdims largest noop_with_empty_axes reverse select_last_index sorted storage_order
training_mode transA transB upper
"""
"""Attributes that are 0 or 1."""

TOGETHER: dict[str, list[tuple[str, ...]]] = {
    "AveragePool": [("ceil_mode", "count_include_pad"), ("auto_pad", "count_include_pad")],
    "CumSum": [("exclusive", "reverse")],
    "Gemm": [("transA", "transB")],
    "GridSample": [("mode", "padding_mode", "align_corners")],
    "Resize": [
        ("mode", "coordinate_transformation_mode"),
        ("nearest_mode", "coordinate_transformation_mode"),
    ],
    "TopK": [("largest", "sorted")],
    **{op: [("keepdims", "noop_with_empty_axes")] for op in RULES if op.startswith("Reduce")},
}
"""Attributes whose values meet: each combination has a row."""

REASONS = {
    "BatchNormalization.spatial": "0 normalises each pixel: refused, see test_foreign_forms",
    "Cast.round_mode": "how narrow floats round, in which nothing is trained",
    "CastLike.round_mode": "how narrow floats round, in which nothing is trained",
    "saturate": "what becomes of numbers beyond the range of narrow floats, in which nothing is trained",
    "Dropout.seed": "masks come from the counter-based generator, from the seed of the run",
    "Dropout.training_mode": "an input, not an attribute",
    "MaxUnpool.output_shape": "where indices count in it, ONNX and ONNX Runtime differ: refused",
    "stash_type": "in which type statistics are summed: that of the data, here",
}
"""Attributes, and values of some, that need no row."""

NEUTRAL = {"strides": 1, "dilations": 1, "pads": 0, "output_padding": 0}
"""What an attribute with an entry an axis says where it says nothing."""

Attributes = Mapping[str, Any]


@cache
def used() -> dict[str, list[dict[str, Any]]]:
    """For each operator the attributes of each node of it that some row makes, defaults among them."""
    found: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in CASES:
        for node in forward_graph(row, DOUBLE).graph:
            if node.op_type == row.op and node.domain == "":
                schema = onnx.defs.get_schema(node.op_type, OPSET, "")
                given = {name: attribute.value for name, attribute in node.attributes.items()}
                found[row.op].append({**_defaults(schema), **given})
    for version, nodes in OLD.values():
        for node in nodes:
            schema = onnx.defs.get_schema(node.op_type, version, "")
            given = {item.name: onnx.helper.get_attribute_value(item) for item in node.attribute}
            found[node.op_type].append({**_defaults(schema), **{k: _text(v) for k, v in given.items()}})
    return found


def _text(value: Any) -> Any:
    return value.decode() if isinstance(value, bytes) else value


def _defaults(schema: onnx.defs.OpSchema) -> dict[str, Any]:
    return {
        name: _text(onnx.helper.get_attribute_value(attribute.default_value))
        for name, attribute in schema.attributes.items()
        if attribute.default_value.type
    }


def operators() -> list[str]:
    return sorted({*RULES, "Dropout", *(op for _, ops, _ in FORMS for op in ops)} - GRAD_OPS.keys())


@cache
def schemas(op: str) -> list[onnx.defs.OpSchema]:
    """Those of the opsets that are read, the newest first."""
    every = [s for s in onnx.defs.get_all_schemas_with_history() if s.name == op and not s.domain]
    every.sort(key=lambda schema: -schema.since_version)
    oldest = next((i for i, schema in enumerate(every) if schema.since_version <= OLDEST), len(every))
    return [schema for schema in every[: oldest + 1] if not schema.deprecated]


def wanted() -> Iterator[tuple[str, str]]:
    """Each operator with each of its attributes, of whatever opset."""
    for op in operators():
        yield from ((op, name) for name in dict.fromkeys(name for s in schemas(op) for name in s.attributes))


def is_moot(op: str, *names: str) -> bool:
    return any(key in REASONS for name in names for key in (name, f"{op}.{name}"))


def test_every_listed_operator_has_a_gradient() -> None:
    known = {*operators(), *(name for _, name in EXTENSIONS)}
    assert not set(PROMISED.split()) - known


@pytest.mark.parametrize("op", sorted({op for op, _ in wanted()}))
def test_every_attribute_is_varied(op: str) -> None:
    """Some row gives it another value than its default, and one of a few words each of them."""
    missing = []
    for name in (name for each, name in wanted() if each == op and not is_moot(op, name)):
        seen = [row[name] for row in used()[op] if name in row]
        words = (*_words_of(op, name), *OTHER_WORDS.get(f"{op}.{name}", ()))
        missing += [f"{name}={word}" for word in words if word not in seen]
        if not words and not any(_is_told(op, name, value) for value in seen):
            missing.append(name)
    assert not missing, f"no row of {op} has {', '.join(missing)}"


@pytest.mark.parametrize("op", TOGETHER)
def test_attributes_meet(op: str) -> None:
    defaults = _defaults(onnx.defs.get_schema(op, OPSET, ""))
    missing = []
    for names in TOGETHER[op]:
        values = [_words_of(op, name) for name in names]
        seen = {tuple(row.get(name, defaults.get(name)) for name in names) for row in used()[op]}
        missing += [dict(zip(names, each, strict=True)) for each in product(*values) if each not in seen]
    assert not missing, f"no row of {op} has {missing}"


WINDOWED = {
    "Conv": ("auto_pad", "dilations", "group", "pads", "strides"),
    "ConvTranspose": (
        *("auto_pad", "dilations", "group", "output_padding", "output_shape", "pads", "strides"),
    ),
    "MaxPool": ("auto_pad", "ceil_mode", "dilations", "pads", "strides"),
    "AveragePool": ("auto_pad", "ceil_mode", "count_include_pad", "pads", "strides"),
    "LpPool": ("auto_pad", "ceil_mode", "dilations", "pads", "strides"),
}


@pytest.mark.parametrize("op", WINDOWED)
@pytest.mark.parametrize("rank", [1, 2, 3])
def test_windows_of_every_rank_have_every_attribute(op: str, rank: int) -> None:
    """Asymmetric pads among them."""
    rows = [
        {**_defaults(onnx.defs.get_schema(op, OPSET, "")), **row.attributes}
        for row in CASES
        if row.op == op and not row.graph and len(row.inputs[0].dims) == rank + 2
    ]
    missing = [
        name for name in WINDOWED[op] if not any(_is_told(op, name, row[name]) for row in rows if name in row)
    ]
    if not any(row["pads"][:rank] != row["pads"][rank:] for row in rows if "pads" in row):
        missing.append("asymmetric pads")
    assert not missing, f"no {rank}-D row of {op} has {', '.join(missing)}"


def test_every_optional_input_is_there_and_not_there() -> None:
    missing = []
    for op in sorted(RULES.keys() - GRAD_OPS.keys()):
        schema = onnx.defs.get_schema(op, OPSET, "")
        optional = onnx.defs.OpSchema.FormalParameterOption.Optional
        for place, formal in enumerate(schema.inputs):
            if formal.option == optional:
                given = [
                    place < len(node.inputs) and node.inputs[place] is not None
                    for row in CASES
                    if row.op == op
                    for node in forward_graph(row, DOUBLE).graph
                    if node.op_type == op
                ]
                if len(set(given)) < 2 and f"{op}.{formal.name}" not in REASONS:
                    missing.append(f"{op}.{formal.name}")
    assert not missing


@pytest.mark.parametrize(("row", "words"), REFUSED, ids=lambda part: str(part))
def test_what_is_refused_is_told_with_its_node(row: Case, words: str) -> None:
    with pytest.raises(UnsupportedError, match=words) as error:
        differentiate(row, DOUBLE)
    assert "(node '" in str(error.value)


def _words_of(op: str, name: str) -> tuple[Any, ...]:
    """What an attribute of a few words, or a flag, may say in our opset; nothing for other attributes."""
    return WORDS.get(f"{op}.{name}", WORDS.get(name, (0, 1) if name in FLAGS.split() else ()))


def _is_told(op: str, name: str, value: Any) -> bool:
    """Whether a value says something else than the attribute's absence would."""
    if name in NEUTRAL:
        return any(entry != NEUTRAL[name] for entry in value)
    defaults = [each[name] for each in map(_defaults, schemas(op)) if name in each]
    return not any(np.array_equal(value, default) for default in defaults)
