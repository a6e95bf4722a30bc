"""How a run ends before its last epoch, in words: every ending leaves a state to go on from."""

from __future__ import annotations

from pathlib import Path

from cnnc.errors import DataError, DivergedError, Interrupted
from cnnc.runtime.checkpoint import LAST


def diverged(what: str, run: Path, *, epoch: int, rate: float, saved_step: int) -> DivergedError:
    """A loss, a metric or the state is not finite, in epoch `epoch` (from 1) at the base rate `rate`."""
    return DivergedError(
        f"{what} (epoch {epoch}), at the learning rate {rate:g} before any "
        f"schedule. The last good state, of step {saved_step}, is kept in {LAST}.",
        where=str(run),
        hint="Train with a smaller --lr, clip the gradients in the optimizer, or give --on-nan skip or "
        "rollback.",
    )


def spoilt(error: DataError, run: Path, *, step: int) -> DataError:
    """Data turned out bad in the middle of a run, whose state of `step` is saved."""
    return DataError(
        error.what,
        where=error.where,
        hint=f"{error.hint} The state of step {step} is saved: go on with "
        f"`cnnc train --resume {run}`; --on-bad-image skip leaves bad images out.".strip(),
    )


def interrupted(run: Path, *, step: int, epoch: int) -> Interrupted:
    """The user asked to stop, in epoch `epoch` (from 1)."""
    return Interrupted(
        f"stopped at step {step}, in epoch {epoch}; the state is saved.",
        where=str(run),
        hint=f"Go on with `cnnc train --resume {run}`.",
    )
