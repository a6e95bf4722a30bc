"""The training graph as people read it: a row a layer, in each row the four stages of a step.

::

    forward │ backward │ gradients of parameters │ update

``∂x`` is the gradient of the loss with respect to x. `cnnc.report.graph_reading` reads it from train.onnx.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Stage = Literal["forward", "backward", "gradient", "update"]
NOWHERE: tuple[int, str] = (0, "")
STAGES: tuple[Stage, ...] = ("forward", "backward", "gradient", "update")
UPDATE_ROW, METRICS_ROW = "step and learning rate", "metrics"
_PLUMBING = {"Constant", "Shape", "Size", "CastLike", "Cast", "Unsqueeze", "Squeeze", "Identity"}


@dataclass(frozen=True)
class Node:
    """A node of train.onnx in words: ``outputs = op(inputs)``; `body` is that of a gradient op."""

    name: str
    op: str
    body: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    where: str
    function: str

    @property
    def plumbing(self) -> bool:
        """Whether it only moves sizes and types about."""
        return self.op in _PLUMBING


@dataclass
class Box:
    """Nodes of one row and stage, drawn as one box; in the last two stages they are those of `parameter`.

    `results` are the values that leave the box, `operands` those that enter it, as people call them; `shape`
    is the first result's. `saved` says that values of the forward pass enter. A box without nodes
    stands for a gradient that is passed on as it is, or that the row's backward box makes too.
    """

    nodes: list[Node] = field(default_factory=list)
    parameter: str = ""
    results: list[str] = field(default_factory=list)
    operands: list[str] = field(default_factory=list)
    shape: str = ""
    saved: bool = False

    @property
    def ops(self) -> list[str]:
        """The operators that say what is computed, gradient ops first; all where there are no others."""
        shown = [node for node in self.nodes if not node.plumbing] or self.nodes
        return list(dict.fromkeys(node.op for node in sorted(shown, key=lambda node: not node.body)))


@dataclass
class Row:
    """A layer, the loss, or another part of the step."""

    name: str
    boxes: dict[Stage, list[Box]] = field(default_factory=lambda: {stage: [] for stage in STAGES})

    def box(self, stage: Stage, parameter: str = "") -> Box:
        """The box of this stage and parameter, made where there is none yet."""
        for box in self.boxes[stage]:
            if box.parameter == parameter:
                return box
        self.boxes[stage].append(Box(parameter=parameter))
        return self.boxes[stage][-1]

    @property
    def nodes(self) -> list[Node]:
        """All nodes of the row, stage by stage."""
        return [node for stage in STAGES for box in self.boxes[stage] for node in box.nodes]


@dataclass(frozen=True)
class TrainingGraph:
    """Rows from the input to the update. `forward` has (from, to) of values that pass from row to row in the
    forward pass, `backward` those of gradients, which mostly go up; `loss` is the row where they turn.
    """

    rows: tuple[Row, ...]
    forward: frozenset[tuple[int, int]]
    backward: frozenset[tuple[int, int]]
    loss: int | None
    functions: Mapping[str, tuple[str, ...]]
    """The body of each gradient op's function, a line a node."""
