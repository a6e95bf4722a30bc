"""A race of two steps, in turns."""

from __future__ import annotations

from cnnc.tuner.contestant import Contestant

TURN = 40.0
"""Milliseconds of steps that each makes in its turn, one step at least.

Where two threads meet, a machine that others use is slow for milliseconds: a turn is longer than that.
"""
TURNS, RACE = 8, 2000.0
"""Turns of a race, fewer where it would take more milliseconds than these; two at least."""
HOPELESS = (2.0, 1.5, 1.2, 1.1, 1.05)
"""A challenger that takes this many times the other's time after a turn, two, … is not raced any further."""


def race(challenger: Contestant, fastest: Contestant, gain: float) -> bool:
    """Whether the challenger takes less than `gain` of the other's time, by the lower quartiles of theirs."""
    steps = max(1, round(TURN / fastest.quick))
    turns = max(2, min(TURNS, round(RACE / (2 * steps * fastest.quick))))
    challenger.run(steps - 1)  # pages of memory that it never touched are slow to come
    challenger.times.clear()
    fastest.times.clear()
    for turn in range(turns):
        challenger.run(steps)
        fastest.run(steps)
        if challenger.quick > HOPELESS[min(turn, len(HOPELESS) - 1)] * fastest.quick:
            break
    return challenger.quick < gain * fastest.quick
