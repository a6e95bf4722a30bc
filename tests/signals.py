"""Signals to a run in a test's own process."""

from __future__ import annotations

import signal


def send(number: int) -> None:
    """Do what Python does when this signal arrives: call the handler that a run has set.

    The kernel has no part in it, so nothing but this test can be stopped; real signals go to processes of
    their own, see test_cli_interrupt.py.
    """
    handler = signal.getsignal(number)
    assert callable(handler)
    assert handler is not signal.default_int_handler, "the run does not listen"
    handler(number, None)
