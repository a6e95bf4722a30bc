"""Images as they come: sound ones of every kind, damaged ones, and folders that are no classes."""

from __future__ import annotations

import io
import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

SIZE = (12, 9)
"""Width and height of the sound images."""


def picture(mode: str = "RGB", size: tuple[int, int] = SIZE, seed: int = 0) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    return Image.fromarray(pixels).convert(mode)


def encoded(form: str = "PNG", size: tuple[int, int] = SIZE, seed: int = 0) -> bytes:
    file = io.BytesIO()
    picture(size=size, seed=seed).save(file, form)
    return file.getvalue()


def folders(root: Path, classes: tuple[str, ...] = ("cat", "dog"), count: int = 3) -> Path:
    """Image folders of sound images, all different."""
    seed = 0
    for split in ("train", "test"):
        for name in classes:
            (root / split / name).mkdir(parents=True)
            for index in range(count):
                picture(seed=(seed := seed + 1)).save(root / split / name / f"{index}.png")
    return root


def bomb(side: int = 50_000) -> bytes:
    """A PNG of a few bytes that claims side×side pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000)))


def turned(path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    picture(size=SIZE[::-1]).save(path, exif=exif)


def deep(path: Path) -> None:
    Image.fromarray((np.arange(108).reshape(9, 12) * 600).astype(np.uint16)).save(path)


SOUND: dict[str, Callable[[Path], None]] = {
    "palette.png": lambda path: picture("P").save(path),
    "cmyk.jpg": lambda path: picture("CMYK").save(path),
    "deep.png": deep,
    "alpha.png": lambda path: picture("RGBA").save(path),
    "gray.tiff": lambda path: picture("L").save(path),
    "bits.png": lambda path: picture("1").save(path),
    "turned.jpg": turned,
    "png-called.jpg": lambda path: picture().save(path, "PNG"),
}
"""Images that need conversion, each of which becomes RGB of `SIZE`."""

several: dict[str, Any] = {"save_all": True, "append_images": [picture(seed=1)]}
BAD: dict[str, tuple[Callable[[Path], object], str]] = {
    "truncated.jpg": (lambda path: path.write_bytes(encoded("JPEG", size=(99, 99))[:2000]), "truncated"),
    "truncated.png": (lambda path: path.write_bytes(encoded()[:200]), "truncated"),
    "header-only.png": (lambda path: path.write_bytes(encoded()[:20]), "not a whole image file"),
    "text.jpg": (lambda path: path.write_text("hello"), "none of BMP, JPEG, PNG, PPM, TIFF, WEBP"),
    "html.png": (lambda path: path.write_text("<html>404"), "none of BMP, JPEG"),
    "zero.jpg": (lambda path: path.write_bytes(b""), "this file is empty"),
    "gif-called.png": (lambda path: path.write_bytes(encoded("GIF")), "none of BMP, JPEG"),
    "bomb.png": (lambda path: path.write_bytes(bomb()), "far more pixels than the limit of 67,108,864"),
    "large.png": (lambda path: path.write_bytes(bomb(9000)), "9000×9000 pixels, over the limit"),
    "float.tiff": (lambda path: picture("L").convert("F").save(path), "pixels of mode F"),
    "several.tiff": (lambda path: picture().save(path, **several), "several images"),
    "animated.webp": (lambda path: picture("RGB").save(path, **several), "several images"),
    "loop.png": (lambda path: path.symlink_to(path.name), "Too many levels of symbolic links"),
    "gone.png": (lambda path: path.symlink_to("nowhere.png"), "there is no such file"),
    "pipe.png": (lambda path: os.mkfifo(path), "not a regular file"),
    "notes.txt": (lambda path: path.write_text("x"), "no image file cnnc reads. Known suffixes"),
}
"""Files that are no usable image, and what is said of each."""


def write_all(folder: Path) -> None:
    """Every sound and every bad file of the tables, in one folder."""
    for name, write in SOUND.items():
        write(folder / name)
    for name, (spoil, _) in BAD.items():
        spoil(folder / name)
