"""A folder that is made under a temporary name beside its own, and renamed when it is whole.

A process that is killed meanwhile leaves it behind. So a process locks the folder that it works on, and the
next one that makes a folder of the same name removes what nobody holds.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4


@contextmanager
def draft(folder: Path) -> Iterator[Path]:
    """A new folder beside `folder`, for the caller to fill and rename; where it is not, it is removed.

    Raises OSError.
    """
    temporary, handle = _new(folder)
    try:
        yield temporary
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        os.close(handle)


def remove_abandoned(folder: Path) -> None:
    """Remove the drafts of `folder` whose processes have ended; others, and what can't be removed, stay."""
    name = re.compile(re.escape(f".{folder.name}.") + "[0-9a-f]{32}")
    with suppress(OSError):
        for path in [entry for entry in folder.parent.iterdir() if name.fullmatch(entry.name)]:
            with suppress(OSError):
                handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
                try:
                    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    shutil.rmtree(path, ignore_errors=True)
                finally:
                    os.close(handle)


def _new(folder: Path) -> tuple[Path, int]:
    """A draft, and a handle that holds its lock.

    Between its making and its locking another process may take it for abandoned: it then holds the lock, or
    has removed the folder, and there is a next one. From then on nobody else gets the lock.
    """
    while True:
        temporary = folder.with_name(f".{folder.name}.{uuid4().hex}")
        temporary.mkdir()
        try:
            handle = os.open(temporary, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError:
            continue
        except OSError:
            with suppress(OSError):
                temporary.rmdir()
            raise
        if _held(handle) and _is_at(handle, temporary):
            return temporary, handle
        os.close(handle)


def _held(handle: int) -> bool:
    """Lock a folder; where the file system has no such locks, nobody removes anything either."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        pass
    return True


def _is_at(handle: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), path.stat())
    except FileNotFoundError:
        return False
