"""The gradient ops: the vocabulary between autodiff, which says what, and lowering, which says how.

An op stands here where standard ONNX has no single obvious expression for it. Every gradient op takes the
tensor whose gradient it gives, so that its output's type is that of an input; a body is free to read only
that input's shape. Adding an op means one row here and one file of bodies in `cnnc.lowering`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from cnnc.ir.types import TensorType

Infer = Callable[[Mapping[str, TensorType]], TensorType]


@dataclass(frozen=True)
class GradOp:
    """The signature of a gradient op.

    `inputs` are names, those that end in ``?`` optional; `outputs` maps a name to the input whose type it
    has, or to a function from the inputs' types to its type; `attributes` maps a name to its Python type.
    """

    name: str
    doc: str
    inputs: tuple[str, ...]
    outputs: Mapping[str, str | Infer]
    attributes: Mapping[str, type]

    def infer(self, types: Sequence[TensorType | None]) -> list[TensorType]:
        """The types of the outputs from the types of the inputs (None for an absent optional one)."""
        required = [name for name in self.inputs if not name.endswith("?")]
        if not len(required) <= len(types) <= len(self.inputs):
            raise ValueError(f"{self.name} takes {', '.join(self.inputs)}; {len(types)} inputs were given")
        named = {name.rstrip("?"): t for name, t in zip(self.inputs, types, strict=False) if t is not None}
        if missing := [name for name in required if name not in named]:
            raise ValueError(f"{self.name} needs its input {missing[0]}")
        return [named[like] if isinstance(like, str) else like(named) for like in self.outputs.values()]


def _op(name: str, doc: str, inputs: str, outputs: Mapping[str, str | Infer], **attributes: type) -> GradOp:
    return GradOp(name, doc, tuple(inputs.split()), outputs, attributes)


_WINDOW = {"kernel_shape": list, "strides": list, "pads": list, "dilations": list}

GRAD_OPS: dict[str, GradOp] = {
    op.name: op
    for op in (
        _op(
            "ConvGradInput",
            "Gradient of Conv for its input x, from dy and the weight w.",
            "dy w x",
            {"dx": "x"},
            **_WINDOW,
            group=int,
        ),
        _op(
            "ConvGradWeight",
            "Gradient of Conv for its weight w, from dy and the input x; summed over the batch.",
            "dy x w",
            {"dw": "w"},
            **_WINDOW,
            group=int,
        ),
        _op(
            "ConvGradBias",
            "Gradient of Conv for its bias b: dy summed over everything but channels.",
            "dy b",
            {"db": "b"},
        ),
        _op("ReluGrad", "dy where the output y is positive, else 0.", "dy y", {"dx": "y"}),
        _op(
            "MaxPoolGrad",
            "Gradient of MaxPool. Elements of a window that tie for its maximum share dy evenly.",
            "dy x y",
            {"dx": "x"},
            **_WINDOW,
            ceil_mode=int,
        ),
        _op(
            "AveragePoolGrad",
            "Gradient of AveragePool: dy shared evenly by the elements that a window averages.",
            "dy x",
            {"dx": "x"},
            **_WINDOW,
            ceil_mode=int,
            count_include_pad=int,
        ),
        _op(
            "BatchNormalizationTraining",
            "Normalisation by the batch's own statistics over all axes but channels (axis 1). The running "
            "statistics move to running · momentum + batch · (1 - momentum), with the population variance, "
            "as ONNX defines BatchNormalization. inv_std is 1 / sqrt(batch variance + epsilon).",
            "x scale bias running_mean running_var",
            {
                "y": "x",
                "next_mean": "running_mean",
                "next_var": "running_var",
                "batch_mean": "scale",
                "inv_std": "scale",
            },
            epsilon=float,
            momentum=float,
        ),
        _op(
            "BatchNormalizationGrad",
            "Gradient of BatchNormalizationTraining for x, scale and bias.",
            "dy x scale batch_mean inv_std",
            {"dx": "x", "dscale": "scale", "dbias": "scale"},
        ),
        _op(
            "DropoutMask",
            "Elementwise 0 with probability ratio, else 1 / (1 - ratio): a function of seed, step, the "
            "attribute stream and the element's index alone.",
            "x seed step",
            {"mask": "x"},
            ratio=float,
            stream=int,
        ),
        _op(
            "SoftmaxCrossEntropy",
            "Loss of each example from logits [N, C, …] and integer labels [N, …]: "
            "-Σ q·log softmax(logits) with q = (1 - s)·one-hot + s/C for label smoothing s.",
            "logits labels",
            {
                "losses": lambda t: TensorType(t["logits"].dtype, t["labels"].dims),
                "log_probabilities": "logits",
            },
            label_smoothing=float,
        ),
        _op(
            "SoftmaxCrossEntropyGrad",
            "Gradient of SoftmaxCrossEntropy for the logits: (softmax - q) · dlosses.",
            "dlosses log_probabilities labels",
            {"dlogits": "log_probabilities"},
            label_smoothing=float,
        ),
        _op(
            "SGDUpdate",
            "g ← g + decay·p; p ← p - rate·g.",
            "p g rate",
            {"next_p": "p"},
            weight_decay=float,
        ),
        _op(
            "MomentumUpdate",
            "g ← g + decay·p; v ← momentum·v + g; p ← p - rate·v or, for Nesterov, "
            "p ← p - rate·(g + momentum·v).",
            "p g v rate",
            {"next_p": "p", "next_v": "v"},
            momentum=float,
            nesterov=int,
            weight_decay=float,
        ),
        _op(
            "AdamUpdate",
            "m ← β₁m + (1-β₁)g; v ← β₂v + (1-β₂)g²; p ← p - rate·(m/c₁)/(√(v/c₂) + ε), where c₁ = 1-β₁ᵗ and "
            "c₂ = 1-β₂ᵗ. weight_decay adds decay·p to g (Adam), decoupled_decay takes rate·decay·p from p "
            "(AdamW).",
            "p g m v rate c1 c2",
            {"next_p": "p", "next_m": "m", "next_v": "v"},
            beta1=float,
            beta2=float,
            epsilon=float,
            weight_decay=float,
            decoupled_decay=float,
        ),
    )
}
