"""Uses of an operator that have no gradient here, and what the error says of why."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from cases.indexing import UNPOOLED
from cases.row import Attributes, Case, case, fixed, graph, having, indices, labels, spaced

REGION = np.array([0, 0, 0.5, 0.5], np.float32)
CROP: Attributes = {"axes": [2, 3], "coordinate_transformation_mode": "tf_crop_and_resize"}
FLOAT = int(ir.DataType.FLOAT)

REFUSED: list[tuple[Case, str]] = [
    (
        graph("ReduceSum", lambda op, x, axes: op.ReduceSum(x, axes, dims=("N", 1)), "N 3", indices("1", 1)),
        "'x1', which is computed",
    ),
    (
        graph(
            "Resize",
            lambda op, x, scales: op.Resize(x, None, op.Cast(scales, to=FLOAT), dims=("N", 2, "P", "Q")),
            *("N 2 3 4", fixed("4", 1.0, 2.0)),
        ),
        "which is computed",
    ),
    (case("Pad", "N 4", indices("4", 1), mode="edge"), "which is computed"),
    (case("Pad", "N 4", [0, -1, 0, 1], mode="reflect"), r"mode='reflect' and the pads \[0, -1, 0, 1\]"),
    *(
        (case("Resize", x, region, None, [4, 4], keep_aspect_ratio_policy="not_larger", **how), words)
        for x, region, how, words in [
            ("N 2 H W", None, having(axes=[2, 3]), "symbolic sizes"),
            ("N 2 4 5", REGION, CROP, "a region that is cropped"),
        ]
    ),
    *(
        (case("ConvTranspose", x, "2 3 3 2", **attributes), words)
        for x, attributes, words in [
            ("N 2 3 3", having(strides=[2, 2], output_padding=[2, 0]), "not below strides"),
            (
                "N 2 3 3",
                having(strides=[2, 2], output_padding=[1, 0], auto_pad="SAME_UPPER"),
                "auto_pad=SAME_UPPER and output_padding",
            ),
            ("N 2 H W", having(output_shape=[5, 5]), "output_shape and the symbolic"),
        ]
    ),
    (case("Conv", "N 2 H W", "3 2 3 3", strides=[2, 2], auto_pad="SAME_UPPER"), "the symbolic size H"),
    *(
        (case(op, spaced(x), kernel_shape=[2], strides=[3], pads=[0, 1], ceil_mode=1), words)
        for op, x, words in [
            ("MaxPool", "N 1 5", "begins outside the input"),
            ("AveragePool", "N 1 H", "ceil_mode, end pads of 1"),
        ]
    ),
    (
        graph(
            "LayerNormalization",
            lambda op, x, s: op.Mul(x, op.CastLike(op.LayerNormalization(x, s, outputs=2)[1], x)),
            *("N 4", "4"),
        ),
        "reads its statistics",
    ),
    (
        graph(
            "BatchNormalization",
            lambda op, x, s: op.BatchNormalization(x, s, s, s, s, outputs=3, training_mode=1)[1],
            *("N 4", "4"),
        ),
        "reads its statistics",
    ),
    (
        graph(
            "MaxUnpool",
            lambda op, x: op.MaxUnpool(
                *op.MaxPool(x, outputs=2, **UNPOOLED[0][1]),
                [3, 2, 5, 7],
                **UNPOOLED[0][1],
                dims=("N", 2, 5, 7),
            ),
            spaced("N 2 4 6"),
        ),
        "an output_shape of its own",
    ),
    (case("NegativeLogLikelihoodLoss", "N 5", labels("N", 5), "5"), "class weights that are trained"),
]
