"""Where a loss that is smoothed over a growing learning rate falls fastest."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

SMOOTHING = 0.9
"""The decay of the moving average of the losses."""
CLEAR, NOISES = 0.05, 5.0
"""A fall is clear if it is this share of the loss, and so many standard deviations of the noise before it."""
BEGUN, OVER = 0.1, 0.5
"""A fall has begun once this share of it is done, and is over when that share of it is lost again."""


def steepest(rates: ArrayLike, losses: ArrayLike) -> float | None:
    """The rate at which `losses`, a moving average of decay `SMOOTHING`, first fall fastest over log(rate).

    None where they never fall clearly. The rule, on the test of L. N. Smith, 2017 (arXiv:1506.01186), is that
    of fastai's and PyTorch Lightning's finders, the steepest slope of the smoothed loss, made to withstand
    noise:

    - The first 1 / (1 - SMOOTHING) averages, of too few losses each, are left out, as Lightning's are; the
      level that the loss falls from is the mean of those that follow.
    - The fall goes from this level to the lowest loss, or the lowest before the loss has grown by `OVER` of
      what it had fallen. Only rates up to the lowest, from where `BEGUN` of it is done for good, come into
      question.
    - A slope is taken over a window about the rate, a tenth of the search wide.
    """
    grid, y = np.asarray(rates, np.float64), np.asarray(losses, np.float64)
    if len(y) < 4:
        return None
    settled = min(round(1 / (1 - SMOOTHING)), len(y) // 4)
    reach = max(1, len(y) // 20)
    grid, y = grid[settled:], y[settled:]
    level = float(y[: 2 * reach + 1].mean())
    clear = max(CLEAR * abs(level), NOISES * _noise(y[: len(y) // 2]))
    fallen = level - np.minimum.accumulate(y)
    over = (fallen > clear) & (level - y < (1 - OVER) * fallen)
    if over.any():
        y = y[: int(np.argmax(over))]
    lowest = int(np.argmin(y))
    fall = level - y[lowest]
    if fall < clear:
        return None
    before = np.flatnonzero(level - y[: lowest + 1] < BEGUN * fall)
    at = np.arange(before[-1] + 1 if len(before) else 0, lowest + 1)
    begin, end = np.maximum(at - reach, 0), np.minimum(at + reach, len(y) - 1)
    slopes = (y[end] - y[begin]) / np.log(grid[end] / grid[begin])
    return float(grid[at[np.argmin(slopes)]])


def _noise(average: NDArray[np.float64]) -> float:
    """The standard deviation of a moving average, from its steps.

    Of independent losses of variance v, with a = 1 - SMOOTHING, the average has the variance v·a / (2 - a),
    and its steps have that times 2a. The median of their sizes, 0.6745 standard deviations, hardly sees the
    fall.
    """
    step = float(np.median(np.abs(np.diff(average)))) / 0.6745
    return step / float(np.sqrt(2 * (1 - SMOOTHING)))
