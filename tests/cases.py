"""The table of cases: each row is one forward node, or a small graph, whose gradients the tests check.

A row gives the operator, its inputs and its attributes. An input is written as its dimensions, ``"N 3 4"``:
drawn from a normal distribution and differentiated. `positive`, `off_zero`, `spaced` draw it elsewhere, away
from kinks; `fixed` and `labels` are inputs that are not differentiated; a list or array is a constant.
Symbols stand for the sizes in `SIZES`; rows with the symbol N run with a batch of one, too.

A registered rule or body that no row reaches fails the suite.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx_ir as ir

from cnnc.ir import Builder, Ops

Array = np.ndarray[Any, Any]
Draw = Callable[[np.random.Generator, Sequence[int]], Array]

SIZES = {"N": 3, "H": 5, "W": 4, "M": 2}


@dataclass(frozen=True)
class Input:
    dims: tuple[int | str, ...]
    draw: Draw
    differentiated: bool = True
    integer: bool = False

    def __str__(self) -> str:
        return " ".join(map(str, self.dims)) or "scalar"


Operand = Input | list[int] | Array | float | None


@dataclass(frozen=True)
class Case:
    """`emit` appends the row's nodes; the first `projected` outputs make the loss."""

    op: str
    operands: tuple[Operand, ...]
    attributes: dict[str, Any] = field(default_factory=dict)
    outputs: int = 1
    projected: int = 1
    graph: Callable[..., Any] | None = None

    def emit(self, builder: Builder, *values: Any) -> tuple[ir.Value, ...]:
        if self.graph is not None:
            result = self.graph(Ops(builder), *values)
        else:
            result = builder.op(self.op, *values, outputs=self.outputs, **self.attributes)
        return result if isinstance(result, tuple) else (result,)

    @property
    def inputs(self) -> list[Input]:
        return [o for o in self.operands if isinstance(o, Input)]

    @property
    def batches(self) -> list[dict[str, int]]:
        """Sizes of the symbols, run by run."""
        has_batch = any("N" in i.dims for i in self.inputs)
        return [SIZES, {**SIZES, "N": 1}] if has_batch else [SIZES]

    def __str__(self) -> str:
        operands = ["-" if o is None else str(o) for o in self.operands]
        attributes = [f"{key}={value}" for key, value in self.attributes.items()]
        return f"{self.op}({', '.join(operands + attributes)})" + (" graph" if self.graph else "")


def normal(dims: str) -> Input:
    return Input(_dims(dims), lambda rng, shape: rng.standard_normal(shape))


def positive(dims: str) -> Input:
    return Input(_dims(dims), lambda rng, shape: rng.uniform(0.5, 2.0, shape))


def off_zero(dims: str) -> Input:
    """Away from zero, where the absolute value, ReLU and 1/x have a kink or a pole."""
    return Input(_dims(dims), lambda rng, shape: rng.uniform(0.25, 2.0, shape) * rng.choice([-1, 1], shape))


def spaced(dims: str) -> Input:
    """No two elements closer than 0.1, so that no small step changes which is the largest."""
    return Input(
        _dims(dims), lambda rng, shape: 0.1 * (rng.permutation(int(np.prod(shape))) - 9.5).reshape(shape)
    )


def fixed(dims: str, low: float = -1.0, high: float = 1.0) -> Input:
    return Input(_dims(dims), lambda rng, shape: rng.uniform(low, high, shape), differentiated=False)


def labels(dims: str, classes: int) -> Input:
    return Input(
        _dims(dims), lambda rng, shape: rng.integers(0, classes, shape), differentiated=False, integer=True
    )


def case(op: str, *operands: Operand | str, outputs: int = 1, projected: int = 1, **attributes: Any) -> Case:
    """A row that is one node."""
    return Case(op, tuple(map(_operand, operands)), attributes, outputs, projected)


def graph(op: str, build: Callable[..., Any], *operands: Operand | str) -> Case:
    """A row that is a small graph around `op`: ``build(op, *values)`` returns its output."""
    return Case(op, tuple(map(_operand, operands)), graph=build)


def _operand(operand: Operand | str) -> Operand:
    return normal(operand) if isinstance(operand, str) else operand


def _dims(text: str) -> tuple[int | str, ...]:
    return tuple(int(d) if d.isdigit() else d for d in text.split())


ELEMENTWISE = [
    case("Identity", "N 3"),
    case("Neg", "N 3"),
    case("Exp", "N 3"),
    case("Log", positive("N 3")),
    case("Sqrt", positive("N 3")),
    case("Erf", "N 3"),
    case("Relu", off_zero("N 3 2")),
    case("LeakyRelu", off_zero("N 3")),
    case("LeakyRelu", off_zero("N 3"), alpha=0.2),
    case("Sigmoid", "N 3"),
    case("Tanh", "N 3"),
    case("Softplus", "N 3"),
    case("Abs", off_zero("N 3")),
    case("Cast", "N 3", to=int(ir.DataType.DOUBLE)),
    case("CastLike", "N 3", np.zeros(1)),
    case("Softmax", "N 5"),
    case("Softmax", "N 4 3", axis=1),
    case("Softmax", "2 3 2", axis=-3),
    case("LogSoftmax", "N 5"),
    case("LogSoftmax", "N 4 3", axis=1),
    case("LogSoftmax", "2 3 2", axis=-2),
]

BROADCAST = [
    case("Add", "N 3", "N 3"),
    case("Add", "N 3 4", "3 1"),
    case("Add", "4", "N 3 4"),
    case("Add", "N 1 4", "3 1"),
    case("Add", "", "N 2"),
    case("Sub", "N 3", "N 3"),
    case("Sub", "1 3", "N 3"),
    case("Sub", "N 2 3", "1 1 3"),
    case("Mul", "N 3", "N 3"),
    case("Mul", "N 3", ""),
    case("Mul", "3 1 2", "N 1 4 1"),
    case("Mul", "1", "2 1"),
    case("Div", "N 3", off_zero("N 3")),
    case("Div", "3", off_zero("N 1")),
    case("Div", "N 2 3", off_zero("")),
    case("Sum", "N 3", "1 3", "N 1", ""),
    case("Sum", "2 3"),
    case("Expand", "3 1", [2, 3, 4]),
    case("Expand", "2 3", [1, 1]),
    graph("Mul", lambda op, x: op.Mul(x, x), "N 3"),
    graph("Add", lambda op, x: op.Add(x, op.Add(x, x)), "N 3"),
    graph("Div", lambda op, x: op.Div(x, op.Sum(x, x, op.Mul(x, x))), positive("N 3")),
    graph("Sub", lambda op, x, b: op.Sub(op.Mul(b, x), b), "N 3 2", "2"),
]

SHAPE = [
    case("Reshape", "N 6", [0, 2, 3]),
    case("Reshape", "2 6", [3, -1]),
    case("Reshape", "N 2 3", [-1, 3]),
    case("Reshape", "2 3", [6]),
    case("Flatten", "N 2 3"),
    case("Flatten", "N 2 3", axis=2),
    case("Flatten", "2 3 2", axis=0),
    case("Flatten", "2 3 2", axis=-1),
    case("Squeeze", "N 1 3 1", [1, -1]),
    case("Squeeze", "1 3 1"),
    case("Unsqueeze", "N 3", [0, -1]),
    case("Transpose", "N 2 3"),
    case("Transpose", "2 N 3 2", perm=[1, 3, 0, 2]),
    case("Concat", "N 2", "N 3", axis=1),
    case("Concat", "2 1 3", "2 2 3", "2 1 3", axis=-2),
    case("Concat", "N 2", "M 2", axis=0),
    case("Concat", "N 2", axis=0),
    graph("Concat", lambda op, x: op.Concat(x, x, axis=1), "N 2"),
    case("Slice", "N 5", [1], [4], [1]),
    case("Slice", "N 5 4", [-4, 1], [-1, 99], [-2, -1]),
    case("Slice", "5 4", [1, 2], [4, 4]),
    case("Slice", "5 4", [0], [-1], [1], [1]),
]

REDUCTION = [
    *(
        case(op, "N 3 2", *axes, keepdims=keepdims)
        for op in ("ReduceSum", "ReduceMean")
        for keepdims in (0, 1)
        for axes in ([], [[1]], [[-1, 0]], [[2, 0, 1]])
    ),
    case("ReduceSum", "N 3", [], noop_with_empty_axes=1),
    case("ReduceMean", "N 3", noop_with_empty_axes=1),
    case("ReduceMean", "N 2 H W", [-2, -1]),
    case("ReduceSum", "N H 2", [1]),
]

PRODUCTS = [
    *(
        case("Gemm", a, b, "5", transA=trans_a, transB=trans_b)
        for trans_a, a in enumerate(("N 4", "4 N"))
        for trans_b, b in enumerate(("4 5", "5 4"))
    ),
    *(
        case("Gemm", a, b, "N 5", transA=trans_a, transB=trans_b, alpha=0.5, beta=-1.5)
        for trans_a, a in enumerate(("N 4", "4 N"))
        for trans_b, b in enumerate(("4 5", "5 4"))
    ),
    case("Gemm", "N 4", "4 5"),
    case("Gemm", "N 4", "4 5", "", beta=0.25),
    case("Gemm", "N 4", "4 5", "N 1", beta=0.25),
    case("Gemm", "N 4", "4 5", "1 5"),
    case("Gemm", "2 1", "1 3", "2 1", alpha=2.0),
    graph("Gemm", lambda op, x: op.Gemm(x, x, transB=1), "N 4"),
    case("MatMul", "N 4", "4 5"),
    case("MatMul", "2 N 3 4", "2 N 4 5"),
    case("MatMul", "N 3 4", "4 5"),
    case("MatMul", "3 4", "N 4 2"),
    case("MatMul", "N 1 3 4", "2 4 5"),
    case("MatMul", "1 3 4", "N 2 4 1"),
    case("MatMul", "4", "4"),
    case("MatMul", "4", "4 5"),
    case("MatMul", "4", "N 2 4 5"),
    case("MatMul", "N 4", "4"),
    case("MatMul", "2 N 3 4", "4"),
    graph("MatMul", lambda op, x: op.MatMul(x, x), "3 3"),
]

CONVOLUTION = [
    case("Conv", "N 2 5 6", "3 2 3 3", "3"),
    case("Conv", "N 2 5 6", "3 2 3 3"),
    case("Conv", "N 2 5 6", "3 2 3 3", "3", pads=[1, 1, 1, 1]),
    case("Conv", "N 2 5 4", "3 2 3 2", "3", pads=[2, 0, 1, 1]),
    case("Conv", "N 2 7 6", "3 2 3 3", "3", strides=[2, 2]),
    case("Conv", "N 2 8 7", "3 2 3 2", "3", strides=[3, 2], pads=[1, 0, 0, 1]),
    case("Conv", "N 2 7 6", "3 2 2 2", "3", dilations=[2, 3]),
    case("Conv", "N 1 8 8", "2 1 2 3", "2", dilations=[3, 2], strides=[2, 3], pads=[1, 2, 0, 1]),
    case("Conv", "N 3 5 5", "4 3 1 1", "4"),
    case("Conv", "N 3 5 5", "4 3 1 1", "4", strides=[2, 2]),
    case("Conv", "N 3 4 4", "4 3 1 1", "4", pads=[1, 1, 1, 1]),
    case("Conv", "N 2 6 6", "3 2 1 1", strides=[3, 3]),
    case("Conv", "N 1 6 6", "2 1 2 2", strides=[3, 3]),
    case("Conv", "N 4 5 6", "6 2 3 3", "6", group=2),
    case("Conv", "N 4 5 6", "2 2 3 2", "2", group=2, strides=[2, 2], pads=[0, 1, 1, 0]),
    case("Conv", "N 6 4 5", "3 2 2 2", "3", group=3, dilations=[2, 1], pads=[1, 1, 1, 1]),
    case("Conv", "N 4 5 5", "4 2 1 1", "4", group=2),
    case("Conv", "N 3 5 5", "3 1 3 3", "3", group=3, pads=[1, 1, 1, 1]),
    case("Conv", "N 3 6 5", "3 1 3 3", "3", group=3, strides=[2, 2], pads=[1, 1, 1, 1]),
    case("Conv", "N 2 5 5", "4 1 3 2", "4", group=2),
    case("Conv", "N 2 5 5", "4 1 2 3", "4", group=2, strides=[2, 1], dilations=[1, 2]),
    case("Conv", "N 2 5 4", "3 2 5 4", "3"),
    case("Conv", "N 2 3 3", "2 2 2 2", pads=[2, 2, 2, 2]),
    case("Conv", "N 2 3 3", "2 2 2 2", pads=[3, 2, 2, 4]),
    case("Conv", "N 2 3 4", "2 2 2 2", pads=[3, 2, 2, 4], strides=[2, 3]),
    case("Conv", "N 1 1 1", "1 1 1 1", "1"),
    *(
        case("Conv", "N 2 6 7", "3 2 3 2", "3", auto_pad=auto_pad, strides=strides)
        for auto_pad in ("SAME_UPPER", "SAME_LOWER", "VALID")
        for strides in ([1, 1], [2, 2], [3, 1])
    ),
    case("Conv", "N 2 H W", "3 2 3 3", "3", pads=[1, 1, 1, 1]),
    case("Conv", "N 2 H W", "3 2 1 1", "3"),
    case("Conv", "N 4 H W", "4 2 2 2", group=2),
    case("Conv", "N 2 7", "3 2 3", "3", pads=[1, 0]),
    case("Conv", "N 4 8", "4 2 3", "4", group=2, strides=[3], pads=[1, 1]),
    case("Conv", "N 2 9", "3 2 2", strides=[2], dilations=[2]),
    case("Conv", "N 2 3 4 3", "2 2 2 2 2", "2", pads=[1, 0, 0, 0, 1, 1]),
    case("Conv", "N 2 4 3 5", "2 1 2 2 3", "2", group=2, strides=[2, 1, 2]),
    case("Conv", "N 1 5 5 5", "2 1 3 2 1", strides=[2, 3, 2], dilations=[2, 1, 1], pads=[0, 1, 0, 0, 0, 0]),
    graph("Conv", lambda op, x, w: op.Conv(op.Conv(x, w), w), "N 2 5 5", "2 2 2 2"),
]

POOLING = [
    case("MaxPool", spaced("N 2 4 6"), kernel_shape=[2, 2], strides=[2, 2]),
    case("MaxPool", spaced("N 2 5 7"), kernel_shape=[2, 3], strides=[2, 3]),
    case("MaxPool", spaced("N 2 5 5"), kernel_shape=[2, 2], strides=[2, 2], ceil_mode=1),
    case("MaxPool", spaced("N 1 6 6"), kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1),
    case("MaxPool", spaced("N 2 5 5"), kernel_shape=[3, 3]),
    case("MaxPool", spaced("N 2 7 6"), kernel_shape=[3, 2], strides=[2, 1], pads=[1, 0, 1, 1]),
    case("MaxPool", spaced("N 2 6 6"), kernel_shape=[3, 3], strides=[2, 2], pads=[0, 1, 1, 0]),
    case("MaxPool", spaced("N 2 6 7"), kernel_shape=[2, 2], strides=[2, 2], pads=[1, 1, 0, 0]),
    case("MaxPool", spaced("N 1 7 7"), kernel_shape=[2, 2], strides=[3, 3]),
    case("MaxPool", spaced("N 1 7 6"), kernel_shape=[2, 3], dilations=[3, 2], strides=[2, 1]),
    case("MaxPool", spaced("N 1 6 6"), kernel_shape=[2, 2], dilations=[2, 2], pads=[1, 1, 1, 1]),
    case("MaxPool", spaced("N 2 3 3"), kernel_shape=[1, 1]),
    case("MaxPool", spaced("N 2 5 4"), kernel_shape=[5, 4]),
    case("MaxPool", spaced("N 2 4 4"), kernel_shape=[2, 2], strides=[2, 2], outputs=2),
    *(
        case("MaxPool", spaced("N 1 5 6"), kernel_shape=[2, 3], strides=strides, auto_pad=auto_pad)
        for auto_pad in ("SAME_UPPER", "SAME_LOWER", "VALID")
        for strides in ([1, 1], [2, 2], [3, 2])
    ),
    case("MaxPool", spaced("N 2 7"), kernel_shape=[2], strides=[2]),
    case("MaxPool", spaced("N 2 7"), kernel_shape=[3], strides=[2], pads=[1, 1]),
    case("MaxPool", spaced("N 1 4 3 4"), kernel_shape=[2, 2, 2], strides=[2, 2, 2]),
    case("MaxPool", spaced("N 1 4 3 4"), kernel_shape=[2, 2, 3], pads=[0, 1, 0, 1, 0, 1], strides=[2, 1, 1]),
    case("AveragePool", "N 2 4 6", kernel_shape=[2, 2], strides=[2, 2]),
    case("AveragePool", "N 2 5 7", kernel_shape=[2, 3], strides=[2, 3]),
    case("AveragePool", "N 2 5 5", kernel_shape=[3, 3]),
    case("AveragePool", "N 1 7 7", kernel_shape=[2, 2], strides=[3, 3]),
    case("AveragePool", "N 2 3 3", kernel_shape=[1, 1]),
    case("AveragePool", "N 2 5 4", kernel_shape=[5, 4]),
    *(
        case("AveragePool", f"N 2 {height} 6", kernel_shape=[3, 2], count_include_pad=include, **attributes)
        for include in (0, 1)
        for height, attributes in [
            (7, {"strides": [2, 1], "pads": [1, 0, 1, 1]}),
            (5, {"strides": [2, 2], "pads": [0, 1, 1, 0]}),
            (6, {"strides": [2, 2], "ceil_mode": 1}),
            (6, {"strides": [2, 3], "ceil_mode": 1, "pads": [1, 1, 0, 0]}),
        ]
    ),
    *(
        case("AveragePool", "N 1 5 6", kernel_shape=[2, 3], strides=strides, auto_pad=auto_pad)
        for auto_pad in ("SAME_UPPER", "SAME_LOWER", "VALID")
        for strides in ([1, 1], [2, 2])
    ),
    case("AveragePool", "N 1 5 6", kernel_shape=[2, 3], auto_pad="SAME_UPPER", count_include_pad=1),
    case("AveragePool", "N 2 7", kernel_shape=[2], strides=[2]),
    case("AveragePool", "N 2 7", kernel_shape=[3], strides=[2], pads=[1, 1]),
    case("AveragePool", "N 1 4 3 4", kernel_shape=[2, 2, 2], strides=[2, 2, 2]),
    case("AveragePool", "N 1 4 3 4", kernel_shape=[2, 2, 3], pads=[0, 1, 0, 1, 0, 1], strides=[2, 1, 1]),
    case("GlobalAveragePool", "N 2 3 4"),
    case("GlobalAveragePool", "N 2 H W"),
    case("GlobalAveragePool", "N 2 5"),
    case("GlobalAveragePool", "N 2 3 2 2"),
]

NORMALIZATION = [
    *(
        case(
            "BatchNormalizationTraining",
            *(x, "2", "2", fixed("2"), fixed("2", 0.5, 2.0)),
            projected=1,
            epsilon=epsilon,
            momentum=momentum,
        )
        for x in ("4 2", "N 2 5", "N 2 3 4", "N 2 2 3 2", "N 2 H W")
        for epsilon, momentum in ((1e-5, 0.9), (0.1, 0.25))
    ),
    case("BatchNormalization", "N 2 3 4", "2", "2", fixed("2"), fixed("2", 0.5, 2.0)),
    case("BatchNormalization", "N 2", "2", "2", fixed("2"), fixed("2", 0.5, 2.0), epsilon=0.1),
    case("BatchNormalization", "N 2 5", "2", "2", fixed("2"), fixed("2", 0.5, 2.0), epsilon=0.1),
    graph("DropoutMask", lambda op, x: op.Mul(x, op.DropoutMask(x, 7, 3, ratio=0.3, stream=5)), "N 4 3"),
]

LOSSES = [
    case("SoftmaxCrossEntropy", "N 5", labels("N", 5), label_smoothing=0.0),
    case("SoftmaxCrossEntropy", "N 5", labels("N", 5), label_smoothing=0.2),
    case("SoftmaxCrossEntropy", "N 4 3", labels("N 3", 4), label_smoothing=0.1),
    case("SoftmaxCrossEntropy", "N 2 H W", labels("N H W", 2), label_smoothing=0.0),
]

RATE = fixed("", 0.01, 0.1)

UPDATES = [
    case("SGDUpdate", fixed("2 3"), fixed("2 3"), RATE, weight_decay=0.0),
    case("SGDUpdate", fixed("2 3"), fixed("2 3"), RATE, weight_decay=0.3),
    *(
        case(
            "MomentumUpdate",
            *(fixed("4"), fixed("4"), fixed("4"), RATE),
            momentum=0.9,
            nesterov=nesterov,
            weight_decay=decay,
        )
        for nesterov in (0, 1)
        for decay in (0.0, 0.3)
    ),
    *(
        case(
            "AdamUpdate",
            *(fixed("2 3"), fixed("2 3"), fixed("2 3"), fixed("2 3", 0.0, 1.0)),
            *(RATE, fixed("", 0.1, 0.9), fixed("", 0.01, 0.9)),
            beta1=0.9,
            beta2=0.99,
            epsilon=1e-3,
            weight_decay=decay,
            decoupled_decay=decoupled,
        )
        for decay, decoupled in ((0.0, 0.0), (0.3, 0.0), (0.0, 0.3))
    ),
]

CASES = [
    *ELEMENTWISE,
    *BROADCAST,
    *SHAPE,
    *REDUCTION,
    *PRODUCTS,
    *CONVOLUTION,
    *POOLING,
    *NORMALIZATION,
    *LOSSES,
    *UPDATES,
]
