"""What forward and backward give."""

from __future__ import annotations

from dataclasses import dataclass, field

import onnx_ir as ir

from cnnc.bundle import metric_count


@dataclass(frozen=True)
class Outcome:
    """Loss, metrics and gradients of one batch.

    `results` are ``loss`` and the metrics' sums and counts, under the names of the graphs' outputs;
    `gradients` those of the mean loss for each trained parameter, `statistics` the next running statistics,
    by name. `recomputed` names the activations that are computed again.
    """

    results: dict[str, ir.Value]
    gradients: dict[str, ir.Value]
    statistics: dict[str, ir.Value] = field(default_factory=dict)
    recomputed: tuple[str, ...] = ()

    @property
    def count(self) -> ir.Value:
        """What the loss counts: examples, pixels or their weights."""
        return self.results[metric_count("loss")]
