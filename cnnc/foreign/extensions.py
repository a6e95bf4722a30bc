"""Operators of ONNX Runtime's own, which its optimizer leaves in models that it saved, in standard ones.

Their definitions are those of ONNX Runtime's ContribOperators.md. ONNX deprecated the GroupNormalization of
opset 18, and its checker refuses it; exporters have written it, and ONNX Runtime runs it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from onnx import NodeProto

from cnnc.errors import UnsupportedError
from cnnc.foreign.emit import Emit, Facts
from cnnc.foreign.newer_forms import gelu_of, group_normalization, rms_normalization, rms_normalization_of
from cnnc.foreign.protos import DOMAINS, attributes, label

RUNTIME = "com.microsoft"


@dataclass(frozen=True)
class Extension:
    """How standard operators say one of another domain, of which the first `inputs` inputs must be there.

    `until` is the opset from which on ONNX has an operator of that name itself.
    """

    form: Callable[[Emit], list[NodeProto]]
    inputs: int = 1
    until: int | None = None

    def __call__(self, node: NodeProto, version: int, facts: Facts) -> list[NodeProto]:
        """The nodes of our opset that do what `node` does. Raises UnsupportedError."""
        if len(node.input) < self.inputs or not all(node.input[: self.inputs]) or not node.output:
            raise UnsupportedError(f"{label(node)} lacks one of its {self.inputs} inputs, or its output.")
        return self.form(Emit(node, version, facts, attributes(node)))


def extension_of(node: NodeProto, version: int) -> Extension | None:
    """The entry of a node in `EXTENSIONS`; None for operators that ONNX has in opset `version`."""
    found = EXTENSIONS.get(("" if node.domain in DOMAINS else node.domain, node.op_type))
    return None if found is not None and found.until and version >= found.until else found


def why_unknown(operator: str, node: str) -> str:
    """Why an operator, with its domain, can't be read, and what to do; `node` is one of it."""
    domain, _, name = operator.rpartition(".")
    if domain.startswith(f"{RUNTIME}.nchwc") or "nhwc" in domain or name.startswith("Nhwc"):
        return (
            f"{node} ({domain}) has its data in a memory layout of ONNX Runtime's own. Save the model again "
            "with graph_optimization_level = ORT_ENABLE_EXTENDED or lower, or take the one it was made from."
        )
    if any(word in name for word in ("QLinear", "Quantize", "Integer", "NBits")):
        return f"{node} computes with quantised values: rounding has no gradient. Build from the float model."
    of = f" of the domain '{domain}'" if domain else ""
    return (
        f"{node}{of} is no operator of ONNX. Export the model again without it, or as a model-local function."
    )


# Activations.


def _quick_gelu(emit: Emit) -> list[NodeProto]:
    """x·sigmoid(αx); Hendrycks and Gimpel, 2016, with α = 1.702."""
    alpha = emit.typed(emit.attributes.get("alpha", 1.702))
    return emit.put("Mul", [emit.input(0), emit.op("Sigmoid", emit.op("Mul", emit.input(0), alpha))])


def _gelu(emit: Emit, approximate: str = "none") -> list[NodeProto]:
    """x·Φ(x) of the input, or of its sum with a bias."""
    x = emit.op("Add", emit.input(0), emit.input(1)) if emit.input(1) else emit.input(0)
    return gelu_of(emit, x, approximate)


_ACTIVATIONS: dict[str, tuple[str, ...]] = {
    "Relu": (),
    "Tanh": (),
    "Sigmoid": (),
    "Softplus": (),
    "HardSwish": (),
    "LeakyRelu": ("alpha",),
    "HardSigmoid": ("alpha", "beta"),
    "Clip": ("min", "max"),
}
"""Those that are fused with a product or a convolution, and what their numbers are called."""


def _activated(emit: Emit, x: str, numbers: list[float]) -> list[NodeProto]:
    """The activation that the attribute names, of x."""
    name = emit.attributes.get("activation", "")
    if name not in _ACTIVATIONS:
        raise emit.unsupported(f"has the activation '{name}', which cnnc does not know")
    if name == "Clip":
        return emit.put("Clip", [x, *map(emit.typed, numbers)])
    named: dict[str, Any] = dict(zip(_ACTIVATIONS[name], numbers, strict=False))
    return emit.put(name, [x], **named)


# Products and convolutions.


def _fused_conv(emit: Emit) -> list[NodeProto]:
    """A convolution, then what is added to it, then an activation."""
    own = ("activation", "activation_params")
    window = {key: value for key, value in emit.attributes.items() if key not in own}
    y = emit.op("Conv", *(emit.input(i) for i in range(3)), **window)
    if emit.input(3):
        y = emit.op("Add", y, emit.input(3))
    return _activated(emit, y, emit.attributes.get("activation_params", []))


def _fused_gemm(emit: Emit) -> list[NodeProto]:
    """A Gemm and an activation."""
    numbers = [emit.attributes.get(f"activation_{name}") for name in ("alpha", "beta", "gamma")]
    factors = {key: value for key, value in emit.attributes.items() if not key.startswith("activation")}
    y = emit.op("Gemm", *(emit.input(i) for i in range(3)), **factors)
    return _activated(emit, y, [number for number in numbers if number is not None])


def _fused_mat_mul(emit: Emit) -> list[NodeProto]:
    """α·A'·B', where ' is a transposition of the last two axes, or of the batch before the first."""
    sides = []
    for side, place in (("A", 0), ("B", 1)):
        x, rank = emit.input(place), emit.facts.rank(emit.input(place))
        perm = list(range(rank))
        if emit.attributes.get(f"transBatch{side}"):
            perm = [*perm[1:-1], 0, rank - 1]
        if emit.attributes.get(f"trans{side}") and rank > 1:
            perm[-2:] = perm[:-3:-1]
        sides.append(x if perm == sorted(perm) else emit.op("Transpose", x, perm=perm))
    alpha = emit.attributes.get("alpha", 1.0)
    if alpha == 1.0:
        return emit.put("MatMul", sides)
    return emit.put("Mul", [emit.op("MatMul", *sides), emit.typed(alpha)])


# Normalisation.


def _layer_normalization(emit: Emit) -> list[NodeProto]:
    """ONNX Runtime has it for opsets in which ONNX does not."""
    _check_outputs(emit, {0})
    return emit.put("LayerNormalization", emit.node.input, emit.node.output[:1], **emit.attributes)


def _simplified_layer_normalization(emit: Emit) -> list[NodeProto]:
    """Without centring: RMSNormalization."""
    _check_outputs(emit, {0})
    return rms_normalization(emit)


def _skip_layer_normalization(emit: Emit, simplified: bool = False) -> list[NodeProto]:
    """Normalisation of the sum of the first two inputs and of the bias, which is the fourth output."""
    _check_outputs(emit, {0, 3})
    bias = emit.input(3 if simplified else 4)
    parts = [emit.input(0), emit.input(1), *([bias] if bias else [])]
    total = emit.node.output[3] if len(emit.node.output) > 3 else ""
    total = total or emit.facts.fresh(emit.node.output[0])
    emit.put("Sum", parts, [total])
    scale, epsilon = emit.input(2), emit.attributes.get("epsilon", 1e-12)
    if simplified:
        return rms_normalization_of(emit, total, scale, -1, epsilon)
    return emit.put(
        "LayerNormalization", [total, scale, emit.input(3)], emit.node.output[:1], epsilon=epsilon
    )


def _check_outputs(emit: Emit, kept: set[int]) -> None:
    """Nothing may read the statistics, which are kept for a backward pass of ONNX Runtime's own."""
    if any(name and place not in kept for place, name in enumerate(emit.node.output)):
        raise emit.unsupported("hands out its statistics")


def _trilu(emit: Emit) -> list[NodeProto]:
    """ONNX has it since opset 14."""
    return emit.put("Trilu", emit.node.input, upper=emit.attributes.get("upper"))


EXTENSIONS: dict[tuple[str, str], Extension] = {
    (RUNTIME, "BiasGelu"): Extension(_gelu, 2),
    (RUNTIME, "FastGelu"): Extension(partial(_gelu, approximate="tanh")),
    (RUNTIME, "FusedConv"): Extension(_fused_conv, 2),
    (RUNTIME, "FusedGemm"): Extension(_fused_gemm, 2),
    (RUNTIME, "FusedMatMul"): Extension(_fused_mat_mul, 2),
    (RUNTIME, "Gelu"): Extension(_gelu),
    (RUNTIME, "QuickGelu"): Extension(_quick_gelu),
    (RUNTIME, "SkipLayerNormalization"): Extension(_skip_layer_normalization, 3),
    (RUNTIME, "SkipSimplifiedLayerNormalization"): Extension(
        partial(_skip_layer_normalization, simplified=True), 3
    ),
    (RUNTIME, "Trilu"): Extension(_trilu),
    ("", "GroupNormalization"): Extension(group_normalization, 3, until=21),
    ("", "LayerNormalization"): Extension(_layer_normalization, 2, until=17),
    ("", "SimplifiedLayerNormalization"): Extension(_simplified_layer_normalization, 2),
}
"""By domain and name."""
