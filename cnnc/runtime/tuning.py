"""Whether a new run trains on a tuned step, and where that comes from: the cache, or the tuner.

The tuner is the compiler's, so it works in a process of its own; what it writes is data: see
`cnnc.runtime.tuned`.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Callable

from cnnc.bundle import Bundle
from cnnc.data import assumed_sizes, synthetic_batch
from cnnc.errors import CnncError, RunError
from cnnc.runtime.session import StepSession
from cnnc.runtime.settings import Settings
from cnnc.runtime.tuned import Conditions, TunedStep, cached

WORTH = 10.0
"""Seconds that a run must take, by its first steps, to be tuned without being asked."""
SHARE, LEAST, MOST = 0.1, 5.0, 120.0
"""The tuner may take this share of the time that the run would, but from `LEAST` to `MOST` seconds."""

Say = Callable[[str], None]


def tuned_for(
    bundle: Bundle, settings: Settings, examples: int, step: StepSession, say: Say
) -> TunedStep | None:
    """The tuned step for a new run of `settings` (resolved) on `examples` examples; None for train.onnx.

    `step` is a session of train.onnx, by which the time of the run is foreseen; its state stays. On CUDA and
    where no batch is full there is nothing to tune, nor in a step that fits into a memory limit,
    which would be undone. `say` hears what comes from the cache, of progress, and of what went wrong: then
    the portable step is used.
    """
    assert settings.threads is not None
    full = examples // settings.batch_size
    static = isinstance(bundle.manifest.input.shape[0], int)
    if settings.tune is False or step.provider.device != "cpu" or not full or static:
        return None
    if bundle.manifest.memory is not None:
        if settings.tune:
            say("the step is not tuned: it was built to fit into a memory limit")
        return None
    conditions = Conditions.of(bundle, settings.batch_size, settings.threads, settings.exact)
    if (known := cached(conditions)) is not None:
        gain = f"{known.step_ms:.2f} ms instead of {known.portable_ms:.2f}"
        say(f"the step was tuned for this machine before: {gain} (--no-tune goes without)")
        return known
    seconds = settings.epochs * full * _trial(bundle, step, settings.batch_size)
    if settings.tune is None and seconds < WORTH:
        return None
    limit = min(max(SHARE * seconds, LEAST), MOST)
    say(f"tuning the step for batches of {settings.batch_size}, about {limit:.0f} s (--no-tune skips it)")
    try:
        found = tune_apart(bundle, conditions, limit, say)
    except CnncError as error:
        say(f"tuning failed, so the portable step is used: {error}")
        return None
    gain = f"{found.portable_ms:.2f} ms before, {found.step_ms:.2f} now"
    say(f"tuned in {found.seconds:.0f} s: {gain}; kept for the next run")
    return found


def tune_apart(bundle: Bundle, conditions: Conditions, seconds: float, say: Say) -> TunedStep:
    """Run the tuner in another process. Raises RunError where it fails."""
    command = [sys.executable, "-P", "-m", "cnnc.tuner", str(bundle.path), str(conditions.batch)]
    command += ["--threads", str(conditions.threads), "--seconds", f"{seconds:g}"]
    command += ["--exact"] if conditions.exact else []
    try:
        ended = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=4 * seconds + 120,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise RunError("the tuner did not end in time.") from None
    except OSError as error:
        raise RunError(f"the tuner can't be started: {error.strerror or error}.") from error
    if ended.returncode or (found := cached(conditions)) is None:
        last = (ended.stderr.strip().splitlines() or ["it wrote nothing"])[-1]
        raise RunError(f"the tuner ended with status {ended.returncode}: {last}")
    for dropped in found.dropped:
        say(f"dropped {dropped}")
    return found


def _trial(bundle: Bundle, step: StepSession, batch: int) -> float:
    """Seconds of a step, from a few on a made-up batch; the session's state is as it was."""
    arrays = synthetic_batch(bundle.manifest, batch, "tune", assumed_sizes(bundle.manifest))
    times = []
    for _ in range(4):
        begun = time.perf_counter()
        step.step(*arrays)
        times.append(time.perf_counter() - begun)
        step.undo()
    return statistics.median(times[1:])
