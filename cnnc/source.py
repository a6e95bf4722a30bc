"""Where in the user's own files something was written: what errors and node metadata point to."""

from __future__ import annotations

import sys
from types import CodeType, FrameType, TracebackType
from typing import Any


def user_line() -> str:
    """``file.py:12`` of the innermost frame that is the user's, not cnnc's; empty where there is none."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and not _is_users(frame.f_code, frame.f_globals):
        frame = frame.f_back
    return "" if frame is None else _place(frame.f_code, frame.f_lineno)


def raised_line(error: BaseException) -> str:
    """``file.py:12`` of the innermost of the user's frames that `error` passed; empty where there is none."""
    place = ""
    traceback: TracebackType | None = error.__traceback__
    while traceback is not None:
        frame = traceback.tb_frame
        if _is_users(frame.f_code, frame.f_globals):
            place = _place(frame.f_code, traceback.tb_lineno)
        traceback = traceback.tb_next
    return place


def _is_users(code: CodeType, names: dict[str, Any]) -> bool:
    """Whether code is the user's; files in graphs/ count as such, methods that dataclasses write do not."""
    package, _, module = str(names.get("__name__", "")).partition(".")
    return (package != "cnnc" or module.startswith("graphs.")) and not code.co_filename.startswith("<string>")


def _place(code: CodeType, line: int) -> str:
    return f"{code.co_filename.replace(chr(92), '/').rpartition('/')[2]}:{line}"
