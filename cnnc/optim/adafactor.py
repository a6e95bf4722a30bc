"""Adafactor, whose slots grow with the sides of a parameter, not with its area."""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from cnnc.checks import real
from cnnc.ir import Builder
from cnnc.optim.adam import step_number
from cnnc.optim.optimizer import Optimizer, Slot
from cnnc.schedules import Schedule


@dataclass(frozen=True)
class Adafactor(Optimizer):
    """Steps relative to the parameter's size, from factored second moments; Shazeer and Stern, 2018.

    As PyTorch's: the moments of a parameter of two or more axes are factored over its last two, and step t
    moves them by t^`decay_exponent` of the way. The step is d · min(rate, 1/√t) · max(`minimum`, rms(p)); d
    is the gradient over the root of its moments, scaled down to an rms of `clip_threshold` at most.
    `weight_decay` takes rate · weight_decay · p from the parameter itself. Raises GraphFileError for a field
    out of range.
    """

    update_op = "AdafactorUpdate"
    decoupled = True

    learning_rate: float | Schedule = 0.01
    decay_exponent: float = -0.8
    epsilon: float = 2.0**-23
    minimum: float = 1e-3
    clip_threshold: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        real("Adafactor", "decay_exponent", self.decay_exponent, least=-1.0, below=0.0)
        real("Adafactor", "epsilon", self.epsilon, positive=True)
        real("Adafactor", "minimum", self.minimum)
        real("Adafactor", "clip_threshold", self.clip_threshold, positive=True)

    def slots(self, shape: tuple[int, ...]) -> tuple[Slot, ...]:
        """``row_var`` […, R, 1] and ``col_var`` […, 1, C], or for a vector ``variance``."""
        if len(shape) < 2:
            return (Slot("variance", shape),)
        *outer, rows, columns = shape
        return Slot("row_var", (*outer, rows, 1)), Slot("col_var", (*outer, 1, columns))

    def scalars(self, builder: Builder, step: ir.Value, rate: ir.Value) -> tuple[ir.Value, ...]:
        """The rate, how far the averages move, and the relative length of the step."""
        count = step_number(builder, step, rate)
        # t^exponent by its logarithm: tract's Pow takes a float32 constant for a float64 one.
        share = builder.op("Exp", builder.op("Mul", builder.op("Log", count), self.decay_exponent))
        return rate, share, builder.op("Min", rate, builder.op("Reciprocal", builder.op("Sqrt", count)))
