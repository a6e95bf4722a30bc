"""How fast a run is, as far as this process saw it."""

from __future__ import annotations

import statistics
import time
from array import array


class Clock:
    """Seconds and images of the epoch under way, and of all epochs."""

    def __init__(self) -> None:
        self._steps = array("d")
        self._seconds, self._images = 0.0, 0
        self.begin_epoch()

    def begin_epoch(self) -> None:
        """The first step of an epoch follows, or the first that is left of it."""
        self._began, self._trained, self._epoch_images = time.perf_counter(), 0.0, 0

    def stepped(self, seconds: float, images: int) -> None:
        """A step on so many images took so long."""
        self._steps.append(seconds)
        self._epoch_images += images

    def end_epoch(self) -> None:
        """The epoch's last step is done; its evaluation follows."""
        self._trained = time.perf_counter() - self._began
        self._seconds += self._trained
        self._images += self._epoch_images

    def epoch(self) -> dict[str, float]:
        """Seconds of the epoch until now, and the images a second of its training."""
        rate = self._epoch_images / self._trained if self._trained else 0.0
        return {
            "seconds": round(time.perf_counter() - self._began, 3),
            "images_per_second": round(rate, 1),
        }

    def rate(self, now: float) -> float:
        """Images a second, in the epoch under way."""
        return self._epoch_images / max(now - self._began, 1e-9)

    @property
    def step_ms_median(self) -> float | None:
        """The median time of a step in milliseconds, None where there was none."""
        return statistics.median(self._steps) * 1e3 if self._steps else None

    @property
    def images_per_second(self) -> float | None:
        """Over all epochs that ended, None where there was none."""
        return self._images / self._seconds if self._images else None
