"""Fixtures that several files of tests use."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
from tiny_bundle import write_tiny_bundle

from cnnc.data import Dataset, load

if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    # What a shell runs in the background ignores Ctrl-C, and so, rightly, does a run begun there: but not
    # where a test sends the signal itself, here or to a process of its own.
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Read foreign models here, without the second that a child process takes to begin."""
    from cnnc.foreign import child, reading

    monkeypatch.setattr(reading, "_spawn", lambda request, seconds: child.answer(request))


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundle that is written by hand."""
    return write_tiny_bundle(tmp_path_factory.mktemp("hand") / "tiny").path


@pytest.fixture(scope="session")
def digits() -> Dataset:
    """The digits that come with cnnc."""
    return load("digits")
