"""Data sets from the web, kept in a cache folder and checked by their checksums.

The cache is ``$CNNC_CACHE``, else ``$XDG_CACHE_HOME/cnnc``, else ``~/.cache/cnnc``. A download that broke
goes on where it stopped. ``$CNNC_MIRROR`` replaces the sources: a file is then fetched from
``$CNNC_MIRROR/<data set>/<file>``.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import Literal
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from cnnc.data.dataset import Dataset, Wanted, numerals
from cnnc.data.idx import read_idx
from cnnc.errors import DataError, os_errors_as

ATTEMPTS = 3
TIMEOUT = 30.0
"""Seconds without a byte before a connection counts as broken."""
SIZE_LIMIT = 2**28
BLOCK = 2**16


@dataclass(frozen=True)
class Source:
    """Where a data set's IDX files lie, and the checksum of each as its publisher gives it."""

    url: str
    algorithm: Literal["md5", "sha256"]
    files: Mapping[str, str]
    classes: tuple[str, ...]


SOURCES = {
    "mnist": Source(
        "https://ossci-datasets.s3.amazonaws.com/mnist",
        "md5",
        {
            "train-images-idx3-ubyte.gz": "f68b3c2dcbeaaa9fbdd348bbdeb94873",
            "train-labels-idx1-ubyte.gz": "d53e105ee54ea40749a09fcbcd1e9432",
            "t10k-images-idx3-ubyte.gz": "9fb629c4189551a2d022fa330f9573f3",
            "t10k-labels-idx1-ubyte.gz": "ec29112dd5afa0611ce80d1b7f02629c",
        },
        numerals(10),
    ),
    "fashion-mnist": Source(
        "https://storage.googleapis.com/tensorflow/tf-keras-datasets",
        "sha256",
        {
            "train-images-idx3-ubyte.gz": "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
            "train-labels-idx1-ubyte.gz": "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
            "t10k-images-idx3-ubyte.gz": "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
            "t10k-labels-idx1-ubyte.gz": "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
        },
        (
            "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat",
            "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
        ),
    ),
}  # fmt: skip


def read_download(name: str, wanted: Wanted) -> Dataset:
    """The data set `name` of `SOURCES`, from the cache or the web. Raises DataError."""
    return replace(read_idx(download(name), wanted), name=name, classes=SOURCES[name].classes)


def cache_folder() -> Path:
    """Where downloads are kept. Raises DataError where neither the environment nor the system tells."""
    if chosen := os.environ.get("CNNC_CACHE"):
        return Path(chosen)
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "cnnc"
    except RuntimeError as error:
        raise DataError(
            "there is no home folder for downloads.", hint="Set CNNC_CACHE to a folder."
        ) from error


def download(name: str, *, base_url: str | None = None, cache: Path | None = None) -> Path:
    """The folder with the files of `name`, each whole; what is missing or damaged is fetched.

    `base_url` is the folder of the files on the web instead of the source's own. Raises DataError where a
    file can't be had; what came of it stays, and the next call goes on from there.
    """
    source = SOURCES[name]
    mirror = os.environ.get("CNNC_MIRROR")
    base = (base_url or (f"{mirror.rstrip('/')}/{name}" if mirror else source.url)).rstrip("/")
    folder = (cache or cache_folder()) / name
    with os_errors_as(
        DataError,
        "downloads can't be kept here",
        where=folder,
        hint="Set CNNC_CACHE to a folder with room that you may write to.",
    ):
        if _lacking(source, folder):
            folder.mkdir(parents=True, exist_ok=True)
            with (folder / ".lock").open("w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)  # a second process waits, and then lacks nothing
                for file in _lacking(source, folder):
                    _fetch(f"{base}/{file}", folder / file, source.algorithm, source.files[file])
    return folder


def _lacking(source: Source, folder: Path) -> list[str]:
    return [
        file
        for file, checksum in source.files.items()
        if not _is_whole(folder / file, source.algorithm, checksum)
    ]


def _is_whole(path: Path, algorithm: str, checksum: str) -> bool:
    if not path.is_file():
        return False
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, lambda: hashlib.new(algorithm, usedforsecurity=False))
    return digest.hexdigest() == checksum


def _fetch(url: str, target: Path, algorithm: str, checksum: str) -> None:
    """Download `url` to `target`, by way of a partial file that a broken connection leaves for next time."""
    partial = target.with_name(f"{target.name}.part")
    for _ in range(ATTEMPTS):
        resumed = partial.exists()
        if not _receive(url, partial):
            continue
        if _is_whole(partial, algorithm, checksum):
            partial.replace(target)
            return
        size = partial.stat().st_size
        partial.unlink()
        if not resumed:
            raise _failure(url, target, f"the {size} bytes it sent don't have the {algorithm} {checksum}")
    raise _failure(url, target, f"it didn't come whole in {ATTEMPTS} attempts")


def _receive(url: str, partial: Path) -> bool:
    """Append to `partial` what is missing of `url`, or write it anew; whether all that was promised came."""
    have = partial.stat().st_size if partial.exists() else 0
    try:
        request = Request(url, headers={"Range": f"bytes={have}-"} if have else {})
        response = urlopen(request, timeout=TIMEOUT)
    except HTTPError as error:
        error.close()
        if error.code == 416:  # the partial file is as long as the whole or longer: start again
            partial.unlink(missing_ok=True)
            return False
        raise _failure(url, partial, f"the server answered {error.code} {error.reason}") from error
    except (OSError, HTTPException, ValueError) as error:
        raise _failure(url, partial, f"{getattr(error, 'reason', error)}") from error
    with response:
        goes_on = response.status == 206 and response.headers.get("Content-Range", "").startswith(
            f"bytes {have}-"
        )
        size = have if goes_on else 0
        length = response.headers.get("Content-Length", "")
        expected = size + int(length) if length.isdecimal() else None
        with partial.open("ab" if goes_on else "wb") as file:
            while block := _read_block(response):
                size += file.write(block)
                if size > SIZE_LIMIT:
                    partial.unlink()
                    raise _failure(url, partial, f"it sends more than {SIZE_LIMIT} bytes")
    return expected is None or size == expected


def _read_block(response: HTTPResponse) -> bytes:
    """The next bytes; none at the end, and none where the connection breaks: the count tells them apart."""
    try:
        return response.read(BLOCK)
    except (OSError, HTTPException):
        return b""


def _failure(url: str, path: Path, why: str) -> DataError:
    return DataError(
        f"this can't be downloaded: {why}.",
        where=url,
        hint=f"Check the connection and run again, or put the file into {path.parent} yourself, "
        "or use --data PATH with a copy of the data.",
    )
