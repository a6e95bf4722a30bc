"""What the readers share: errors that name the file, and a limit on memory."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cnnc.errors import DataError

DEFLATE_RATIO = 1032
"""No deflate stream expands further (zlib's technical notes), so a larger claim is a lie or a bomb."""


@contextmanager
def reading(path: Path | str, kind: str) -> Iterator[None]:
    """Turn whatever goes wrong while a library reads `path` into one DataError that names the file.

    The except clause is broad on purpose: on damaged bytes zipfile, zlib, NumPy and Pillow raise more than
    a dozen types between them. Their warnings about damage are silenced: the error says it.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except DataError:
        raise
    except MemoryError as error:
        raise DataError("this doesn't fit in memory.", where=str(path)) from error
    except Exception as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise DataError(f"this can't be read: {error.strerror}.", where=str(path)) from error
        reason = f"{error}".rstrip(".") or type(error).__name__
        raise DataError(
            f"this is not a whole {kind}: {reason}.",
            where=str(path),
            hint="It may be truncated or damaged, or something else than its name says: get a fresh copy.",
        ) from error


def file_size(path: Path) -> int:
    """The size of a regular file in bytes. Raises DataError where it is missing, special or empty."""
    if not path.exists():
        raise DataError("there is no such file.", where=str(path))
    if not path.is_file():
        raise DataError("this is not a regular file.", where=str(path))
    if size := path.stat().st_size:
        return size
    raise DataError("this file is empty.", where=str(path), hint="Get a fresh copy.")


def ensure_fits_memory(size: int, where: Path) -> None:
    """Raise DataError where `size` bytes of data are more than the machine's memory."""
    if size > (memory := physical_memory()):
        raise DataError(
            f"this holds {size / 2**30:.1f} GiB of data, the machine has {memory / 2**30:.1f} GiB of memory.",
            where=str(where),
            hint="Data sets are held in memory: use fewer or smaller images.",
        )


def physical_memory() -> int:
    """The machine's memory in bytes."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
