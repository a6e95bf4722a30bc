"""How much memory this process holds."""

from __future__ import annotations

import os
import resource
import sys
from contextlib import suppress
from pathlib import Path


def memory() -> int:
    """The resident size of this process now, in bytes; where the system doesn't tell, the largest so far."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    except (OSError, ValueError, IndexError):
        return peak_memory()
    return pages * os.sysconf("SC_PAGE_SIZE")


def peak_memory() -> int:
    """The largest resident size this process has had, in bytes."""
    with suppress(OSError, StopIteration):  # Linux; `getrusage` there counts that of the process before, too
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))
    size = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return size if sys.platform == "darwin" else size * 1024
