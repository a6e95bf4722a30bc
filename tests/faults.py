"""Damaged files, and faults at the n-th call of the system.

There the process ends, or the call fails as a full disk makes it.

`in_children` gives a process of its own to a test, from which `forked` makes children at a cost of
milliseconds: the one pytest runs in has threads, which a fork does not survive.
"""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

CALLS = ("open", "fchmod", "write", "fsync", "close", "link", "replace")
KILLED = 9
"""The exit status of a child that a fault ended."""


def _killed_before(call: Callable[..., Any], *arguments: Any) -> None:
    os._exit(KILLED)


def _killed_halfway(call: Callable[..., Any], *arguments: Any) -> None:
    if len(arguments) == 2 and isinstance(arguments[1], memoryview):
        call(arguments[0], arguments[1][: len(arguments[1]) // 2])
    os._exit(KILLED)


def _killed_after(call: Callable[..., Any], *arguments: Any) -> None:
    call(*arguments)
    os._exit(KILLED)


def _fails(number: int) -> Callable[..., None]:
    def fail(call: Callable[..., Any], *arguments: Any) -> None:
        raise OSError(number, os.strerror(number))

    return fail


FAULTS: dict[str, Callable[..., None]] = {
    "killed before": _killed_before,
    "killed halfway": _killed_halfway,
    "killed after": _killed_after,
    "full disk": _fails(errno.ENOSPC),
    "read-only file system": _fails(errno.EROFS),
    "failing disk": _fails(errno.EIO),
}


@contextmanager
def injected(at: int, fault: Callable[..., None]) -> Iterator[list[str]]:
    """The `at`-th of `CALLS` inside the block (from 0) has a `fault`; the names of all calls are listed."""
    calls: list[str] = []
    originals = {name: getattr(os, name) for name in CALLS}

    def wrapped(name: str) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            calls.append(name)
            if len(calls) - 1 == at:
                return fault(originals[name], *arguments)
            return originals[name](*arguments, **options)

        return call

    for name in CALLS:
        setattr(os, name, wrapped(name))
    try:
        yield calls
    finally:
        for name, original in originals.items():
            setattr(os, name, original)


def forked(job: Callable[[], str]) -> str:
    """What `job` returns in a child, or ``"killed"``; an exception is returned as its text."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            said = job()
        except BaseException as error:
            said = f"{type(error).__name__}: {error}"
        os.write(writer, said.encode())
        os._exit(0)
    os.close(writer)
    with open(reader, encoding="utf-8") as pipe:
        said = pipe.read()
    _, status = os.waitpid(child, 0)
    return "killed" if os.waitstatus_to_exitcode(status) == KILLED else said


def in_children(program: str, **arguments: Any) -> Any:
    """What ``main(**arguments)`` of `program` returns, in a fresh process, by way of JSON."""
    code = f"{program}\nimport json, sys\nprint(json.dumps(main(**json.loads(sys.argv[1]))))"
    child = subprocess.run(
        [sys.executable, "-c", code, json.dumps(arguments)],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        timeout=170,
        check=False,
    )
    assert child.returncode == 0, child.stderr
    return json.loads(child.stdout)


def truncate(path: Path) -> None:
    """Leave the first half of a file."""
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def alter(path: Path) -> None:
    """Change one byte in the middle, as a bad disk would."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
