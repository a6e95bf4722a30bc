"""What follows a step that comes to a NaN or an infinity.

``stop`` ends the run: its last checkpoint stays. ``skip`` leaves the batch out: the step is taken back, and
the next batch begins from the same state. ``rollback`` goes back to the state the epoch began with, and on
from there at half the learning rate; to an epoch's beginning and not to the newest checkpoint, so that a run
that is killed and resumed takes the same course. Neither goes on for ever.
"""

from __future__ import annotations

import math
from typing import Literal

from cnnc.runtime.session import StepSession, Sums

OnNan = Literal["stop", "skip", "rollback"]
SKIPS = 20
"""So many batches may be skipped one after the other, and never all of an epoch."""
ROLLBACKS = 5
"""So often may a run roll back: the rate is then 1/32 of what it was."""
ROLLBACK_FACTOR = 0.5


class NotFinite(Exception):  # noqa: N818 -- an event of the loop, which decides what follows
    """A loss, metric or state is not finite; the message says which, and when."""


def spoiled(loss: float, sums: Sums) -> str:
    """What is not finite of a step's loss and sums, in words; empty where all is."""
    if not math.isfinite(loss):
        return f"the loss became {loss}"
    for name, (total, _) in sums.items():
        if isinstance(total, float) and not math.isfinite(total):
            return f"the sum of {name} became {total}"
    return ""


def spoiled_state(step: StepSession) -> str:
    """Which tensor of the state is not finite, in words; empty where all are."""
    name = step.not_finite()
    return f"the state '{name}' has values that are not finite" if name else ""
