"""What reads files that others may have written: a sound file of each kind, and the call that reads it.

`tests/test_fuzz_files.py` (hypothesis) and `scripts/fuzz.py` (atheris) damage the files. A reader may return,
or raise `CnncError`; anything else it does is a fault.
"""

from __future__ import annotations

import gzip
import io
import json
import struct
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from tiny_bundle import write_tiny_bundle

from cnnc.bundle import MANIFEST, Bundle
from cnnc.data import load, read_image
from cnnc.errors import CnncError
from cnnc.runtime.checkpoint import Checkpoint, Progress, encode
from cnnc.runtime.checkpoint import load as load_checkpoint

X = np.arange(2 * 6 * 7, dtype=np.uint8).reshape(2, 6, 7)
Y = np.array([1, 0], dtype=np.uint8)


@dataclass(frozen=True)
class Target:
    """A kind of file: the damaged one is called `name`, `seeds` are sound ones, `partners` lie beside it."""

    name: str
    seeds: tuple[bytes, ...]
    read: Callable[[Path], object]
    partners: tuple[tuple[str, bytes], ...] = ()

    def prepare(self, folder: Path) -> Path:
        """Write the partners; returns the path of the file to damage."""
        folder.mkdir(exist_ok=True)
        for name, data in self.partners:
            (folder / name).write_bytes(data)
        return folder / self.name

    def attempt(self, path: Path, data: bytes) -> CnncError | None:
        """Let the reader have `data`; returns the error it raises on purpose."""
        path.write_bytes(data)
        try:
            self.read(path)
        except CnncError as error:
            return error
        return None


def picture(form: str, image: Image.Image | None = None, **options: object) -> bytes:
    file = io.BytesIO()
    (image or Image.fromarray(X[0])).save(file, form, **options)
    return file.getvalue()


def _npz(save: Callable[..., None]) -> bytes:
    file = io.BytesIO()
    save(file, x=X, y=Y)
    return file.getvalue()


def shard(form: int = tarfile.USTAR_FORMAT, name: str = "{}") -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=form) as archive:
        members = {"a.png": picture("PNG"), "a.cls": b"1", "b.png": picture("PNG"), "b.json": b'{"label": 0}'}
        for key, data in members.items():
            info = tarfile.TarInfo(name.format(key))
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return file.getvalue()


def _folder(path: Path) -> object:
    return load(path.parent, workers=0)


IDX = struct.pack(">HBB3I", 0, 8, 3, *X.shape) + X.tobytes()
IDX_LABELS = struct.pack(">HBBI", 0, 8, 1, 2) + Y.tobytes()
RECORDS = b"".join(bytes([label]) + bytes(3072) for label in (3, 1))
LONG = "x" * 120 + "/{}"
IDX_PARTNERS = (
    ("train-labels-idx1-ubyte", IDX_LABELS),
    ("t10k-labels-idx1-ubyte", IDX_LABELS),
    ("t10k-images-idx3-ubyte", IDX),
)
EXIF = Image.Exif()
EXIF[0x0112] = 6
PALETTE = Image.fromarray(X[0]).convert("P")
TARGETS = {
    "idx": Target("train-images-idx3-ubyte", (IDX,), _folder, IDX_PARTNERS),
    "idx-gz": Target("train-images-idx3-ubyte.gz", (gzip.compress(IDX, mtime=0),), _folder, IDX_PARTNERS),
    "npz": Target(
        "train.npz",
        (_npz(np.savez), _npz(np.savez_compressed)),
        _folder,
        (("test.npz", _npz(np.savez)),),
    ),
    "tar": Target(
        "train.tar",
        (shard(), shard(tarfile.GNU_FORMAT, LONG), shard(tarfile.PAX_FORMAT, "é" + LONG)),
        _folder,
        (("test.tar", shard()),),
    ),
    "cifar": Target("data_batch_1.bin", (RECORDS,), _folder, (("test_batch.bin", RECORDS),)),
    "image": Target(
        "image.png",
        (
            *(picture(form) for form in ("PNG", "JPEG", "BMP", "PPM", "TIFF", "WEBP")),
            picture("PNG", PALETTE),
            picture("JPEG", exif=EXIF),
            picture("TIFF", compression="tiff_lzw"),
            picture("TIFF", compression="tiff_deflate"),
            picture("PNG", Image.fromarray(X[0].astype(np.uint16))),
        ),
        lambda path: read_image(path, 3),
    ),
}
"""The readers of data. `with_bundle` adds those of cnnc's own files."""


def with_bundle(folder: Path) -> dict[str, Target]:
    """All targets; `folder` is a place for a sound bundle."""
    bundle = write_tiny_bundle(folder / "sound")
    files = tuple((path.name, path.read_bytes()) for path in sorted(bundle.path.iterdir()))
    contents = dict(files)
    checkpoint = encode(Checkpoint(bundle.initial_state(), Progress(1, 2, 3)))

    def bundle_of(path: Path) -> object:
        return Bundle.open(path.parent).initial_state()

    def part(name: str, *further: bytes) -> Target:
        partners = tuple(item for item in files if item[0] != name)
        return Target(name, (contents[name], *further), bundle_of, partners)

    unsealed = {key: value for key, value in json.loads(contents[MANIFEST]).items() if key != "sha256"}

    return {
        **TARGETS,
        "manifest": part(MANIFEST, json.dumps(unsealed).encode()),
        "bundle": part("train.onnx"),
        "state": part("state.safetensors"),
        "checkpoint": Target(
            "last.safetensors", (checkpoint,), lambda path: load_checkpoint(path, bundle.manifest)
        ),
    }
