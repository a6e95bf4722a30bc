"""What a measurement found, ready to be shown."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from cnnc.profiling.attribution import PARTS, Part


@dataclass(frozen=True)
class Row:
    """A layer, or ``loss``, ``metrics``, ``update``: milliseconds of a step, by part."""

    layer: str
    parts: dict[Part, float]

    @property
    def total(self) -> float:
        """All parts together."""
        return sum(self.parts.values())


@dataclass(frozen=True)
class Profile:
    """Where the time goes, in milliseconds of a step under the profiler, which slows small steps down.

    `rows` are in the order of the forward pass, `operators` from the largest. Of all kernel time, `by_flow`
    was assigned to a layer by the nodes around it and `unassigned` to none; `between` is outside of kernels.
    """

    rows: tuple[Row, ...]
    operators: dict[str, float]
    kernels: float
    between: float
    by_flow: float
    unassigned: float
    nodes: int

    @property
    def parts(self) -> dict[Part, float]:
        """Milliseconds of each part that the step has, over all layers."""
        sums = {part: sum(row.parts.get(part, 0.0) for row in self.rows) for part in PARTS}
        return {part: ms for part, ms in sums.items() if ms}


@dataclass(frozen=True)
class Report:
    """The speed and the memory of one pass of a network.

    `milliseconds` are those of each step, `peak_memory` bytes: the largest resident size of a process that
    does nothing else.
    """

    name: str
    task: str
    graph: str
    batch: int
    device: str
    provider: str
    threads: int
    milliseconds: Sequence[float]
    peak_memory: int
    profile: Profile | None = None

    @property
    def median(self) -> float:
        """The step time, in milliseconds."""
        return statistics.median(self.milliseconds)

    @property
    def spread(self) -> tuple[float, float]:
        """The first and the ninth decile of the step times, in milliseconds."""
        if len(self.milliseconds) < 2:
            return self.median, self.median
        deciles = statistics.quantiles(self.milliseconds, n=10, method="inclusive")
        return deciles[0], deciles[-1]

    @property
    def images_per_second(self) -> float:
        """At the median step time."""
        return self.batch / self.median * 1e3

    def record(self) -> dict[str, Any]:
        """The same as one JSON object."""
        low, high = self.spread
        record: dict[str, Any] = {
            "name": self.name,
            "pass": self.task,
            "graph": self.graph,
            "batch_size": self.batch,
            "device": self.device,
            "provider": self.provider,
            "threads": self.threads,
            "steps": len(self.milliseconds),
            "step_ms": {"median": self.median, "p10": low, "p90": high, "min": min(self.milliseconds)},
            "images_per_second": self.images_per_second,
            "peak_memory_mb": self.peak_memory / 1e6,
        }
        if self.profile is not None:
            record["profile"] = {**asdict(self.profile), "parts": self.profile.parts}
        return record
