"""environment.json: on which machine and with which versions a run was trained, each time it went on."""

from __future__ import annotations

import json
import os
import platform
import sys
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from cnnc.runtime.files import write_whole
from cnnc.runtime.reporter import Start

ENVIRONMENT = "environment.json"
PACKAGES = (
    "cnnc", "numpy", "onnx", "onnx-ir", "onnxruntime", "onnxruntime-gpu", "pillow", "rich", "safetensors",
    "typer", "matplotlib", "tensorboardX",
)  # fmt: skip


def versions() -> dict[str, str]:
    """The installed version of each package that cnnc uses."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def machine() -> dict[str, Any]:
    """The system, the processor and the memory of this machine; `cpus` are those this process may use."""
    try:
        cpus = len(os.sched_getaffinity(0))
    except AttributeError:  # not Linux
        cpus = os.cpu_count() or 1
    return {
        "system": platform.platform(),
        "processor": _processor(),
        "cpus": cpus,
        "memory_gb": round(_memory() / 1e9, 1),
    }


def record_environment(run: Path, start: Start) -> None:
    """Add this process to the run's environment.json. Raises OSError."""
    path = run / ENVIRONMENT
    session = {
        "from_step": start.step,
        "started": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "provider": start.provider,
        "threads": start.threads,
        "python": sys.version.split()[0],
        "packages": versions(),
        **machine(),
    }
    write_whole(path, (json.dumps({"sessions": [*sessions(run), session]}, indent=1) + "\n").encode())


def sessions(run: Path) -> list[dict[str, Any]]:
    """What environment.json tells of each process that trained the run; none where it can't be read."""
    try:
        found = json.loads((run / ENVIRONMENT).read_text(encoding="utf-8"))["sessions"]
    except (OSError, ValueError, KeyError, TypeError):
        return []
    return [each for each in found if isinstance(each, dict)] if isinstance(found, list) else []


def _processor() -> str:
    """The processor's model, as Linux tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "")


def _memory() -> int:
    """Physical memory in bytes; 0 where the system doesn't tell."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):
        return 0
