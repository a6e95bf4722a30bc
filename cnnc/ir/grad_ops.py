"""The gradient ops: the vocabulary between autodiff, which says what, and lowering, which says how.

An op stands here where standard ONNX has no single obvious expression for it. Every gradient op takes the
tensor whose gradient it gives, so that its output's type is that of an input; a body is free to read only
that input's shape. Adding an op means one row here and one file of bodies in `cnnc.lowering`.
"""

from __future__ import annotations

import onnx_ir as ir

from cnnc.ir.grad_op import GradOp, grad_op
from cnnc.ir.types import TensorType
from cnnc.ir.update_ops import UPDATE_OPS

_WINDOW = {"kernel_shape": list, "strides": list, "pads": list, "dilations": list}

GRAD_OPS: dict[str, GradOp] = {
    op.name: op
    for op in (
        grad_op(
            "ConvGradInput",
            "Gradient of Conv for its input x, from dy and the weight w.",
            "dy w x",
            {"dx": "x"},
            **_WINDOW,
            group=int,
        ),
        grad_op(
            "ConvGradWeight",
            "Gradient of Conv for its weight w, from dy and the input x; summed over the batch.",
            "dy x w",
            {"dw": "w"},
            **_WINDOW,
            group=int,
        ),
        grad_op(
            "ConvGradBias",
            "Gradient of Conv for its bias b: dy summed over everything but channels.",
            "dy b",
            {"db": "b"},
        ),
        grad_op("ReluGrad", "dy where the output y is positive, else 0.", "dy y", {"dx": "y"}),
        grad_op(
            "GatherGrad",
            "Gradient of Gather for its data x: each element of dy is added to the one it was taken from.",
            "dy x indices",
            {"dx": "x"},
            axis=int,
        ),
        grad_op(
            "MaxPoolGrad",
            "Gradient of MaxPool. Elements of a window that tie for its maximum share dy evenly.",
            "dy x y",
            {"dx": "x"},
            **_WINDOW,
            ceil_mode=int,
        ),
        grad_op(
            "AveragePoolGrad",
            "Gradient of AveragePool: dy shared evenly by the elements that a window averages.",
            "dy x",
            {"dx": "x"},
            **_WINDOW,
            ceil_mode=int,
            count_include_pad=int,
        ),
        grad_op(
            "LpPoolGrad",
            "Gradient of LpPool, the p-norm of each window; 0 where that norm is 0.",
            "dy x y",
            {"dx": "x"},
            **_WINDOW,
            ceil_mode=int,
            p=int,
        ),
        grad_op(
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
        grad_op(
            "BatchNormalizationGrad",
            "Gradient of BatchNormalizationTraining for x, scale and bias.",
            "dy x scale batch_mean inv_std",
            {"dx": "x", "dscale": "scale", "dbias": "scale"},
        ),
        grad_op(
            "InstanceNormalizationGrad",
            "Gradient of InstanceNormalization, each channel of each example normalised alone.",
            "dy x scale",
            {"dx": "x", "dscale": "scale", "dbias": "scale"},
            epsilon=float,
        ),
        grad_op(
            "LayerNormalizationGrad",
            "Gradient of LayerNormalization, each example normalised over its axes from `axis` on.",
            "dy x scale bias?",
            {"dx": "x", "dscale": "scale", "dbias": "bias"},
            axis=int,
            epsilon=float,
        ),
        grad_op(
            "LRNGrad",
            "Gradient of local response normalisation, y = x / (bias + alpha/size · Σ x²)^beta with the sum "
            "over size neighbouring channels.",
            "dy x",
            {"dx": "x"},
            alpha=float,
            beta=float,
            bias=float,
            size=int,
        ),
        grad_op(
            "ResizeGrad",
            "Gradient of Resize. `scales` and `roi` are those of all axes; a scale of 0 is dy's size by x's.",
            "dy x",
            {"dx": "x"},
            mode=str,
            coordinate_transformation_mode=str,
            nearest_mode=str,
            cubic_coeff_a=float,
            exclude_outside=int,
            antialias=int,
            scales=list,
            roi=list,
        ),
        *(
            grad_op(
                f"GridSampleGrad{output}",
                f"Gradient of GridSample for its {name}, from dy, the grid and the input x.",
                "dy grid x",
                {f"d{name}": name},
                mode=str,
                padding_mode=str,
                align_corners=int,
            )
            for output, name in (("Input", "x"), ("Grid", "grid"))
        ),
        grad_op(
            "DropoutMask",
            "Elementwise 0 with probability ratio, else 1 / (1 - ratio): a function of seed, step, the "
            "attribute stream and the element's index alone.",
            "x seed step",
            {"mask": "x"},
            ratio=float,
            stream=int,
        ),
        grad_op(
            "UniformDraws",
            "For each example of x `count` numbers (j + 1/2) / 2^15, j uniform in [0, 2^15): a function of "
            "seed, step, the attribute stream and the place of the example and the number alone.",
            "x seed step",
            {"numbers": lambda t, a: TensorType(ir.DataType.FLOAT, (t["x"].dims[0], a["count"]))},
            count=int,
            stream=int,
        ),
        grad_op(
            "SoftmaxCrossEntropy",
            "Loss of each example from logits [N, C, …], integer labels [N, …] and weights [C] (default 1): "
            "-Σ w·q·log softmax(logits) with q = (1 - s)·one-hot + s/C for label smoothing s.",
            "logits labels weights?",
            {
                "losses": lambda t, _: TensorType(t["logits"].dtype, t["labels"].dims),
                "log_probabilities": "logits",
            },
            label_smoothing=float,
        ),
        grad_op(
            "SoftmaxCrossEntropyGrad",
            "Gradient of SoftmaxCrossEntropy for the logits: (softmax·Σ w·q - w·q) · dlosses.",
            "dlosses log_probabilities labels weights?",
            {"dlogits": "log_probabilities"},
            label_smoothing=float,
        ),
        *UPDATE_OPS,
    )
}
