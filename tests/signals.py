"""Signals that a test sends to its own process."""

from __future__ import annotations

import signal
import threading

import pytest


def send(number: int) -> None:
    """Send a signal to this thread, at once: `os.kill` may reach another one, and later.

    Python handles signals in the main thread alone: a run on another one can't listen, and a worker of
    pytest-xdist that had its tests there would end.
    """
    if threading.current_thread() is not threading.main_thread():
        pytest.skip("this worker of pytest-xdist is not on the main thread, where signals arrive")
    signal.raise_signal(number)
