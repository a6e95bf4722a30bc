"""The learning rate over the steps of a training."""

from __future__ import annotations

from cnnc.errors import UsageError
from cnnc.ort_training.api.optimizer import Optimizer


class LinearLRScheduler:
    """Warm-up from 0 to `initial_lr` over `warmup_step_count` steps, then down to 0 at `total_step_count`.

    As documented; onnxruntime-training 1.19.2 itself takes the two counts for each other. Raises UsageError
    where the warm-up is longer than the whole.
    """

    def __init__(
        self, optimizer: Optimizer, warmup_step_count: int, total_step_count: int, initial_lr: float
    ) -> None:
        if not 0 <= warmup_step_count <= total_step_count:
            raise UsageError(
                f"LinearLRScheduler: a warm-up of {warmup_step_count} steps does not fit into "
                f"{total_step_count} steps in all.",
                hint="The warm-up comes first, as documented; onnxruntime-training 1.19.2 took the two for "
                "each other.",
            )
        self._optimizer, self._initial = optimizer, initial_lr
        self._warmup, self._total = warmup_step_count, total_step_count
        self.step()

    def step(self) -> None:
        """Set the learning rate by the optimizer's finished steps: call it after each of them."""
        done = self._optimizer.finished_steps
        if done < self._warmup:
            share = done / self._warmup
        else:
            share = max(0.0, (self._total - done) / max(1, self._total - self._warmup))
        self._optimizer.set_learning_rate(self._initial * share)
