"""Files that are whole or not there: a temporary name in the same folder, flushed to disk, then renamed.

Everything a run keeps is written by `write_whole` or `append_line`, with plain calls of the system, so that
a test can end the process before, in and after each of them.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4

TEMPORARY = ".unfinished-"


def write_whole(path: Path, data: bytes, *, keep: Path | None = None) -> None:
    """Write `data` to `path` so that a crash at any moment leaves the old file or the new one.

    The file that stood at `path` lives on as `keep` where that is given; at no moment is there no file at
    `path`. A new file gets the permissions of the one it replaces, or those the process's umask gives.
    Raises OSError.
    """
    with _temporary(path) as temporary:
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        try:
            with suppress(FileNotFoundError):
                os.fchmod(handle, stat.S_IMODE(os.stat(path).st_mode))
            _write_all(handle, data)
            os.fsync(handle)
        finally:
            os.close(handle)
        if keep is not None and path.exists():
            _keep(path, keep)
        os.replace(temporary, path)
    flush_folder(path.parent)


def append_line(path: Path, line: bytes) -> None:
    """Add `line` at the end of a file and flush it to disk. Raises OSError."""
    handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        _write_all(handle, line)
        os.fsync(handle)
    finally:
        os.close(handle)


def flush_folder(folder: Path) -> None:
    """Make the names in `folder` survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def file_name(text: str, otherwise: str = "unnamed") -> str:
    """`text` as the name of a visible file in one folder, whatever it holds."""
    return re.sub(r"[^\w.-]+", "-", text).strip(".-") or otherwise


def file_names(texts: Iterable[str]) -> list[str]:
    """`file_name` of each, no two alike, whether case counts or not: later ones end in ``-2``, ``-3``, …"""
    names: list[str] = []
    taken = set[str]()
    for text in texts:
        name = plain = file_name(text)
        number = 1
        while name.casefold() in taken:
            number += 1
            name = f"{plain}-{number}"
        taken.add(name.casefold())
        names.append(name)
    return names


def umask() -> int:
    """The process's umask, which can only be read by setting it."""
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def _write_all(handle: int, data: bytes) -> None:
    """`os.write` until all of `data` is written: the system may take less at a time."""
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(handle, rest) :]


def _keep(path: Path, keep: Path) -> None:
    """Let the file at `path` be found at `keep` too; where the file system has no links, there alone."""
    with _temporary(keep) as link:
        try:
            os.link(path, link)
        except OSError:
            link = path
        os.replace(link, keep)


@contextmanager
def _temporary(path: Path) -> Iterator[Path]:
    """A free name in the folder of `path`; what still has it at the end of the block is removed.

    That is not for errors alone: renaming a link to another link of the same file does nothing.
    """
    temporary = path.with_name(f"{TEMPORARY}{uuid4().hex}")
    try:
        yield temporary
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
