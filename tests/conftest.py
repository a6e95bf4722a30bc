"""Fixtures that several files of tests use."""

from __future__ import annotations

import pytest


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Read foreign models here, without the second that a child process takes to begin."""
    from cnnc.foreign import child, reading

    monkeypatch.setattr(reading, "_spawn", lambda request, seconds: child.answer(request))
