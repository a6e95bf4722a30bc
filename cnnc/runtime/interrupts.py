"""Ctrl-C, SIGTERM and SIGHUP as a request to stop at the next batch, where the state can be saved."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class StopRequest:
    """Whether the user asked to stop."""

    asked = False


@contextmanager
def stop_requests() -> Iterator[StopRequest]:
    """Catch SIGINT, SIGTERM and SIGHUP inside the block; the second of them ends the process at once.

    One that the process was started to ignore, as by nohup, stays ignored. Python delivers
    signals to the main thread alone: on another thread nothing is caught.
    """
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    before = {
        number: handler
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        if (handler := signal.getsignal(number) or signal.SIG_DFL) != signal.SIG_IGN
    }

    def handle(number: int, frame: FrameType | None) -> None:
        request.asked = True
        for caught in before:  # not Python's handler, which waits for the runtime to return
            signal.signal(caught, signal.SIG_DFL)

    for number in before:
        signal.signal(number, handle)
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
