"""Downloads, from a server on this machine that misbehaves on request."""

import gzip
import hashlib
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Barrier, Thread
from typing import Literal

import numpy as np
import pytest

from cnnc.data import load
from cnnc.data.download import SOURCES, Source, cache_folder, download
from cnnc.errors import DataError

NOISE = np.random.Generator(np.random.Philox(0)).integers(0, 256, (40, 8, 8), dtype=np.uint8)
IMAGES = gzip.compress(struct.pack(">HBB3I", 0, 8, 3, 40, 8, 8) + NOISE.tobytes())
LABELS = gzip.compress(struct.pack(">HBBI", 0, 8, 1, 40) + bytes(range(10)) * 4)
FILES = {
    f"{split}-{kind}-ubyte.gz": data
    for split in ("train", "t10k")
    for kind, data in (("images-idx3", IMAGES), ("labels-idx1", LABELS))
}
FIRST = "train-images-idx3-ubyte.gz"


@dataclass
class Site:
    """The server: what it holds, how it misbehaves, and the Range header of each request for `FIRST`."""

    url: str = ""
    files: dict[str, bytes] = field(default_factory=lambda: dict(FILES))
    cuts: list[int] = field(default_factory=list)
    ranges: Literal["kept", "ignored", "wrong"] = "kept"
    asked: list[str | None] = field(default_factory=list)

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        name = handler.path.rsplit("/", 1)[-1]
        data, range_header = self.files.get(name), handler.headers["Range"]
        if name == FIRST:
            self.asked.append(range_header)
        if data is None or not handler.path.startswith("/mnist/"):
            handler.send_error(404)
            return
        start = 0
        if range_header and self.ranges != "ignored":
            start = int(range_header.removeprefix("bytes=").removesuffix("-")) if self.ranges == "kept" else 0
            if start >= len(data):
                handler.send_error(416)
                return
            handler.send_response(206)
            handler.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        else:
            handler.send_response(200)
        handler.send_header("Content-Length", str(len(data) - start))
        handler.end_headers()
        end = self.cuts.pop(0) if self.cuts and name == FIRST else len(data)
        handler.wfile.write(data[start:end])


@pytest.fixture
def site() -> Iterator[Site]:
    site = Site()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            site.answer(self)

        def log_message(self, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        site.url = f"http://127.0.0.1:{server.server_port}"
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield site
        server.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The files above stand for MNIST, in a cache of the test's own; no test reaches the network."""
    checksums = {name: hashlib.sha256(data).hexdigest() for name, data in FILES.items()}
    monkeypatch.setitem(SOURCES, "mnist", Source("http://127.0.0.1:9/", "sha256", checksums, ("zero", "one")))
    monkeypatch.setenv("CNNC_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("CNNC_MIRROR", raising=False)
    monkeypatch.setenv("no_proxy", "*")
    return tmp_path / "cache" / "mnist"


@pytest.fixture
def mirror(site: Site, monkeypatch: pytest.MonkeyPatch) -> Site:
    monkeypatch.setenv("CNNC_MIRROR", f"{site.url}/")
    return site


def is_whole(folder: Path) -> bool:
    found = {path.name: path.read_bytes() for path in folder.iterdir() if path.name != ".lock"}
    return found == FILES


def test_the_data_comes_and_is_kept(mirror: Site, cache: Path) -> None:
    dataset = load("mnist")
    assert dataset.name == "mnist"
    assert dataset.classes == ("zero", "one")
    np.testing.assert_array_equal(dataset.train.images[:, 0], NOISE)
    assert is_whole(cache)
    mirror.files.clear()
    assert len(load("mnist").test) == 40
    assert mirror.asked == [None]


def test_base_url_and_cache_can_be_given(site: Site, tmp_path: Path) -> None:
    folder = download("mnist", base_url=f"{site.url}/mnist", cache=tmp_path / "other")
    assert folder == tmp_path / "other" / "mnist"
    assert is_whole(folder)


def test_a_cut_connection_is_gone_on_with(mirror: Site, cache: Path) -> None:
    mirror.cuts = [500]
    load("mnist")
    assert mirror.asked == [None, "bytes=500-"]
    assert is_whole(cache)


def test_a_download_goes_on_in_the_next_call(mirror: Site, cache: Path) -> None:
    mirror.cuts = [500, 600, 700]
    with pytest.raises(DataError, match="didn't come whole in 3 attempts"):
        load("mnist")
    assert (cache / f"{FIRST}.part").read_bytes() == IMAGES[:700]
    assert not (cache / FIRST).exists()
    load("mnist")
    assert mirror.asked == [None, "bytes=500-", "bytes=600-", "bytes=700-"]
    assert is_whole(cache)


@pytest.mark.parametrize("ranges", ["ignored", "wrong"])
def test_a_server_that_sends_all_again_is_understood(
    mirror: Site, cache: Path, ranges: Literal["ignored", "wrong"]
) -> None:
    mirror.cuts, mirror.ranges = [500], ranges
    load("mnist")
    assert mirror.asked == [None, "bytes=500-"]
    assert is_whole(cache)


@pytest.mark.parametrize(
    ("partial", "asked"),
    [
        (b"wrong", ["bytes=5-", None]),
        (IMAGES, [f"bytes={len(IMAGES)}-", None]),
        (IMAGES + b"more", [f"bytes={len(IMAGES) + 4}-", None]),
        (b"", [None]),
    ],
)
def test_a_partial_file_that_does_not_fit_is_started_again(
    mirror: Site, cache: Path, partial: bytes, asked: list[str | None]
) -> None:
    cache.mkdir(parents=True)
    (cache / f"{FIRST}.part").write_bytes(partial)
    load("mnist")
    assert mirror.asked == asked
    assert is_whole(cache)


def test_a_damaged_file_in_the_cache_is_fetched_again(mirror: Site, cache: Path) -> None:
    load("mnist")
    (cache / FIRST).write_bytes(IMAGES[:-1])
    load("mnist")
    assert mirror.asked == [None, None]
    assert is_whole(cache)


def test_a_wrong_checksum_leaves_nothing(mirror: Site, cache: Path) -> None:
    mirror.files[FIRST] = b"<html>please log in</html>"
    with pytest.raises(DataError, match="the 26 bytes it sent don't have the sha256"):
        load("mnist")
    assert [path.name for path in cache.iterdir()] == [".lock"]


def test_too_much_leaves_nothing(mirror: Site, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cnnc.data.download.SIZE_LIMIT", 1000)
    with pytest.raises(DataError, match="more than 1000 bytes"):
        load("mnist")
    assert [path.name for path in cache.iterdir()] == [".lock"]


def test_a_missing_file_is_named(mirror: Site, cache: Path) -> None:
    del mirror.files["t10k-labels-idx1-ubyte.gz"]
    with pytest.raises(DataError, match="the server answered 404") as error:
        load("mnist")
    assert error.value.where == f"{mirror.url}/mnist/t10k-labels-idx1-ubyte.gz"
    assert len(list(cache.glob("*.gz"))) == 3


def test_offline_says_what_to_do(cache: Path) -> None:
    with pytest.raises(DataError, match=re.escape(f"put the file into {cache} yourself")) as error:
        load("mnist")
    assert error.value.where == f"http://127.0.0.1:9/{FIRST}"
    assert "Connection refused" in str(error.value)


def test_files_put_into_the_cache_by_hand_are_used(cache: Path) -> None:
    cache.mkdir(parents=True)
    for name, data in FILES.items():
        (cache / name).write_bytes(data)
    assert len(load("mnist").train) == 40
    assert {path.name for path in cache.iterdir()} == FILES.keys()  # a read-only cache would do


@pytest.mark.parametrize("url", ["file:///etc", "ftp://127.0.0.1", "nonsense", "http://[", "http://a b/"])
def test_a_mirror_without_the_files_is_an_error(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("CNNC_MIRROR", url)
    with pytest.raises(DataError, match="can't be downloaded"):
        load("mnist")


def test_a_cache_that_cannot_be_written_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("CNNC_CACHE", str(tmp_path / "file"))
    with pytest.raises(DataError, match="Set CNNC_CACHE"):
        load("mnist")


def test_two_downloads_at_once_do_not_disturb_each_other(mirror: Site, cache: Path) -> None:
    together, results = Barrier(2), []

    def work() -> None:
        together.wait()
        results.append(len(load("mnist").train))

    threads = [Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [40, 40]
    assert mirror.asked == [None]


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"CNNC_CACHE": "/a", "XDG_CACHE_HOME": "/b"}, "/a"),
        ({"CNNC_CACHE": "", "XDG_CACHE_HOME": "/b"}, "/b/cnnc"),
        ({"CNNC_CACHE": "", "XDG_CACHE_HOME": "", "HOME": "/c"}, "/c/.cache/cnnc"),
    ],
)
def test_where_the_cache_is(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], expected: str
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert cache_folder() == Path(expected)


def test_without_a_home_the_cache_must_be_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("CNNC_CACHE")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", no_home)
    with pytest.raises(DataError, match="Set CNNC_CACHE"):
        load("mnist")
