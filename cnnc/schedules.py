"""Learning rate schedules: functions of the number of finished steps, computed inside the graph."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import onnx_ir as ir

from cnnc.checks import integer, real
from cnnc.errors import GraphFileError
from cnnc.ir import Builder
from cnnc.source import user_line


class Schedule(ABC):
    """A learning rate as a function of the number of finished steps, 0 at the first step."""

    @property
    @abstractmethod
    def base(self) -> float:
        """The rate that a wish for another one is measured against."""

    @abstractmethod
    def at(self, step: int) -> float:
        """The rate of the step after `step` finished ones."""

    @abstractmethod
    def emit(self, builder: Builder, step: ir.Value, dtype: ir.DataType) -> ir.Value:
        """Emit `at` for an int64 scalar `step`; the rate is a scalar of `dtype`."""


@dataclass(frozen=True)
class Constant(Schedule):
    """Always `rate`. Raises GraphFileError for a field out of range."""

    rate: float

    def __post_init__(self) -> None:
        real("Constant", "rate", self.rate, positive=True)

    @property
    def base(self) -> float:
        """`rate`."""
        return float(self.rate)

    def at(self, step: int) -> float:
        """`rate`."""
        return float(self.rate)

    def emit(self, builder: Builder, step: ir.Value, dtype: ir.DataType) -> ir.Value:
        """A constant."""
        return builder.constant(self.rate, dtype)


@dataclass(frozen=True)
class Step(Schedule):
    """`rate` · `factor`ⁿ, where n counts the whole periods of `every` steps that are over.

    Raises GraphFileError for a field out of range.
    """

    rate: float
    every: int
    factor: float = 0.1

    def __post_init__(self) -> None:
        real("Step", "rate", self.rate, positive=True)
        integer("Step", "every", self.every)
        real("Step", "factor", self.factor, positive=True)

    @property
    def base(self) -> float:
        """`rate`."""
        return float(self.rate)

    def at(self, step: int) -> float:
        """The rate of the step after `step` finished ones."""
        return float(self.rate * self.factor ** (step // self.every))

    def emit(self, builder: Builder, step: ir.Value, dtype: ir.DataType) -> ir.Value:
        """The periods are divided out as integers, so that no large step is ever rounded."""
        periods = builder.op("Cast", builder.op("Div", step, self.every), to=int(dtype))
        power = builder.op("Pow", builder.constant(self.factor, dtype), periods)
        rate: ir.Value = builder.op("Mul", power, self.rate)
        return rate


@dataclass(frozen=True)
class Cosine(Schedule):
    """Half a cosine from `rate` down to `final` at step `steps`; Loshchilov and Hutter, 2017.

    Raises GraphFileError for a field out of range.
    """

    rate: float
    steps: int
    final: float = 0.0

    def __post_init__(self) -> None:
        real("Cosine", "rate", self.rate, positive=True)
        integer("Cosine", "steps", self.steps)
        real("Cosine", "final", self.final)

    @property
    def base(self) -> float:
        """`rate`."""
        return float(self.rate)

    def at(self, step: int) -> float:
        """The rate of the step after `step` finished ones."""
        left = max(self.steps - step, 0) / self.steps
        return self.final + (self.rate - self.final) * math.sin(0.5 * math.pi * left) ** 2

    def emit(self, builder: Builder, step: ir.Value, dtype: ir.DataType) -> ir.Value:
        """As sin² of the steps left, which is (1 + cos) / 2 without its cancellation near the end."""
        left = builder.op("Max", builder.op("Sub", self.steps, step), 0)
        share = builder.op("Div", builder.op("Cast", left, to=int(dtype)), float(self.steps))
        sine = builder.op("Sin", builder.op("Mul", share, 0.5 * math.pi))
        above = builder.op("Mul", builder.op("Mul", sine, sine), self.rate - self.final)
        rate: ir.Value = builder.op("Add", above, self.final)
        return rate


@dataclass(frozen=True)
class Warmup(Schedule):
    """The first `steps` steps climb evenly to the start of `schedule`, whose clock starts after them.

    Raises GraphFileError for a field out of range.
    """

    steps: int
    schedule: Schedule

    def __post_init__(self) -> None:
        integer("Warmup", "steps", self.steps)
        if not isinstance(self.schedule, Schedule):
            raise GraphFileError(
                f"Warmup: schedule must be a schedule, not {self.schedule!r}.",
                where=user_line(),
                hint="For a fixed rate, write schedules.Constant(rate).",
            )

    @property
    def base(self) -> float:
        """The base of `schedule`."""
        return self.schedule.base

    def at(self, step: int) -> float:
        """The rate of the step after `step` finished ones."""
        return min(step + 1, self.steps) / self.steps * self.schedule.at(max(step - self.steps, 0))

    def emit(self, builder: Builder, step: ir.Value, dtype: ir.DataType) -> ir.Value:
        """Without a branch: both clocks stop where their part ends."""
        part = builder.op("Min", builder.op("Add", step, 1), self.steps)
        share = builder.op("Div", builder.op("Cast", part, to=int(dtype)), float(self.steps))
        after = builder.op("Max", builder.op("Sub", step, self.steps), 0)
        rate: ir.Value = builder.op("Mul", share, self.schedule.emit(builder, after, dtype))
        return rate
