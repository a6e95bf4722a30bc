"""One example from its place to pixels: what worker processes do, and this process where there are none."""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np

from cnnc.data.catalogue import Place
from cnnc.data.files import reading
from cnnc.data.images import SIZE_LIMIT, Form, decode, read_header
from cnnc.errors import DataError

HEAD = 2**16
"""So many bytes of a file tell its header and its checksum; where they don't, all of them do."""
Looked = tuple[int, int, str, int]
"""Height, width, mode and checksum of an image."""


def read_place(place: Place, where: str, limit: int | None = None) -> bytes:
    """The bytes of an example, or the first `limit` of them. Raises DataError."""
    path, offset, size = place
    if size > SIZE_LIMIT:
        raise DataError(f"this image has {size} bytes, over the limit of {SIZE_LIMIT:,}.", where=where)
    wanted = size if limit is None else min(size, limit)
    with reading(where, "image file"):
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            data = os.pread(handle, wanted, offset)
            while 0 < len(data) < wanted and (
                more := os.pread(handle, wanted - len(data), offset + len(data))
            ):
                data += more
        finally:
            os.close(handle)
        if len(data) < wanted:
            raise ValueError(f"only {len(data)} of its {size} bytes are left")
    return data


def decode_place(place: Place, form: Form, decoder: str, where: str) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """An example as uint8 [C, H, W]. Raises DataError."""
    return DECODERS[decoder](read_place(place, where), form, where)


def look(place: Place, where: str, whole: bool = False) -> Looked:
    """What an image's header says, and a checksum of its beginning. With `whole` it is decoded too.

    Raises DataError.
    """
    head = read_place(place, where, HEAD)
    data = read_place(place, where) if whole and len(head) < place[2] else head
    try:
        header = read_header(data, where)
    except DataError:
        if len(data) == place[2]:
            raise
        header = read_header(read_place(place, where), where)  # one whose header lies behind its pixels
    if whole:
        decode(data, Form(3), where)
    return (*header.size, header.mode, zlib.crc32(head))


def _planes(data: bytes, form: Form, where: str) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Raw pixels [C, H, W], such as CIFAR's records are."""
    assert form.size is not None
    return np.frombuffer(data, np.uint8).reshape(form.channels, *form.size)


DECODERS: dict[str, Callable[[bytes, Form, str], np.ndarray[Any, np.dtype[np.uint8]]]] = {
    "image": decode,
    "planes": _planes,
}
