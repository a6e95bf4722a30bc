"""Where in the user's own files something was written: what errors and node metadata point to."""

from __future__ import annotations

import sys
import sysconfig
from pathlib import PurePath
from types import CodeType, FrameType, TracebackType
from typing import Any

_LIBRARIES = tuple({sysconfig.get_path(kind) for kind in ("stdlib", "platstdlib", "purelib", "platlib")})


def user_line() -> str:
    """``file.py:12`` of the innermost frame that is the user's; empty where there is none."""
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
    """Whether code is the user's: no part of cnnc but its graphs, no library, no method of a dataclass."""
    module = str(names.get("__name__"))
    if module == "cnnc" or module.startswith("cnnc."):
        return module.startswith("cnnc.graphs.") and code.co_filename != "<string>"
    return not code.co_filename.startswith(("<string>", "<frozen", *_LIBRARIES))


def _place(code: CodeType, line: int) -> str:
    path = PurePath(code.co_filename)
    name = path.name if path.name != "__init__.py" else f"{path.parent.name}/{path.name}"
    return f"{name}:{line}"
