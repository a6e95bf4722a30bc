"""Image folders: ``train/<class>/…`` and ``test/<class>/…``, one image a file.

Classes come in natural order of their folders' names (``2`` before ``10``). The images of both splits have
one size, after rotation by their EXIF orientation. They become grayscale (ITU-R 601 luma) or RGB as the
network takes, or RGB where any file has colour or a palette; transparency is dropped.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from cnnc.data.dataset import Dataset, Split, Wanted, numerals
from cnnc.data.files import ensure_fits_memory, file_size, reading
from cnnc.errors import DataError, did_you_mean

if TYPE_CHECKING:
    from PIL.Image import Image

PATTERNS = ("train/", "test/")
FORMATS = {
    ".bmp": "BMP",
    ".jpeg": "JPEG",
    ".jpg": "JPEG",
    ".pgm": "PPM",
    ".png": "PNG",
    ".ppm": "PPM",
    ".tif": "TIFF",
    ".tiff": "TIFF",
    ".webp": "WEBP",
}
"""The suffixes that are read, and Pillow's decoders; no other decoder ever sees a file."""
PIXEL_LIMIT = 2**26
"""Larger images are refused before they are decoded."""
CLUTTER = {"thumbs.db", "desktop.ini"}
"""Files that file managers leave behind; they and hidden files are passed over."""
GRAY_MODES, COLOUR_MODES = {"1", "L", "LA"}, {"P", "PA", "RGB", "RGBA", "CMYK", "YCbCr"}


def read_folders(folder: Path, wanted: Wanted) -> Dataset:
    """Read the image folders in `folder`. Raises DataError."""
    splits = {name: _files_by_class(folder / name) for name in ("train", "test")}
    if unmatched := sorted(splits["train"].keys() ^ splits["test"].keys(), key=natural_order):
        raise DataError(
            f"train and test hold different classes: only one of them has {', '.join(unmatched[:5])}.",
            where=str(folder),
        )
    classes = _class_order(tuple(splits["train"]), wanted.classes, folder)
    files = [path for by_class in splits.values() for paths in by_class.values() for path in paths]
    channels = wanted.channels or (3 if any(_mode(path) in COLOUR_MODES for path in files) else 1)
    images = _read_images(files, channels, wanted.size)
    index = {name: number for number, name in enumerate(classes)}
    labels = np.array([index[path.parent.name] for path in files], dtype=np.int64)
    cut = sum(map(len, splits["train"].values()))
    train = Split(images[:cut], labels[:cut], str(folder / "train"))
    test = Split(images[cut:], labels[cut:], str(folder / "test"))
    return Dataset(folder.resolve().name, train, test, classes)


def read_image(path: Path, channels: int) -> npt.NDArray[np.uint8]:
    """One image file as uint8 [C, H, W], upright, with 1 or 3 channels. Raises DataError."""
    if channels not in (1, 3):
        raise DataError(f"the network takes {channels} channels, image files give 1 or 3.", where=str(path))
    from PIL import ImageOps

    with _opened(path) as image:
        if image.width * image.height > PIXEL_LIMIT:
            raise DataError(
                f"this image has {image.width}×{image.height} pixels, over the limit of {PIXEL_LIMIT:,}.",
                where=str(path),
            )
        if image.mode not in GRAY_MODES | COLOUR_MODES:
            raise DataError(
                f"this image has pixels of mode {image.mode}, not 8 bits a channel.",
                where=str(path),
                hint="Convert it to an 8-bit image, or store the data as .npz.",
            )
        if getattr(image, "n_frames", 1) > 1:
            raise DataError("this file holds several images.", where=str(path), hint="Store one a file.")
        upright = ImageOps.exif_transpose(image)
        pixels = np.asarray(upright.convert("RGB" if channels == 3 else "L"))
    return np.ascontiguousarray(np.atleast_3d(pixels).transpose(2, 0, 1))


def natural_order(name: str) -> tuple[list[str | int], str]:
    """A sort key that compares runs of digits as numbers."""
    parts = re.split("([0-9]+)", name.casefold())
    return [int(part) if index % 2 else part for index, part in enumerate(parts)], name


def _files_by_class(split: Path) -> dict[str, list[Path]]:
    if not split.is_dir():
        raise DataError(
            "there is no such folder.", where=str(split), hint="Image folders come as train and test."
        )
    classes = {}
    for folder in _entries(split):
        if not folder.is_dir():
            raise DataError(
                "this is no folder.",
                where=str(folder),
                hint=f"Images lie in {split.name}/<class>/, by class.",
            )
        files = _entries(folder)
        for path in files:
            if path.is_dir():
                raise DataError(
                    "this is a folder among images.", where=str(path), hint="Images lie directly in <class>/."
                )
            if path.suffix.lower() not in FORMATS:
                raise DataError(
                    "this is no image file cnnc reads.",
                    where=str(path),
                    hint=f"Known suffixes: {', '.join(FORMATS)}. Convert it, or move it away.",
                )
        if not files:
            raise DataError("this class holds no image.", where=str(folder))
        classes[folder.name] = files
    if not classes:
        raise DataError(
            "this folder holds no class.", where=str(split), hint="Images lie in <class>/ below it."
        )
    return classes


def _entries(folder: Path) -> list[Path]:
    with reading(folder, "folder"):
        entries = [
            path for path in folder.iterdir() if path.name[0] != "." and path.name.lower() not in CLUTTER
        ]
    return sorted(entries, key=lambda path: natural_order(path.name))


def _class_order(found: tuple[str, ...], wanted: tuple[str, ...], folder: Path) -> tuple[str, ...]:
    """The network's class names in its order, where it has names; else those of the folders."""
    unknown = [name for name in found if name not in wanted]
    if not unknown:
        return wanted
    if wanted == numerals(len(wanted)):
        return found
    raise DataError(
        f"the network knows no class '{unknown[0]}'.",
        where=str(folder),
        hint=did_you_mean(unknown[0], wanted),
    )


@contextmanager
def _opened(path: Path) -> Iterator[Image]:
    """The image file, its header read; Pillow loads with the first one, as most data holds none."""
    from PIL import Image

    file_size(path)
    with reading(path, "image file"), Image.open(path, formats=sorted({*FORMATS.values()})) as image:
        yield image


def _mode(path: Path) -> str:
    with _opened(path) as image:
        return image.mode


def _read_images(files: list[Path], channels: int, size: tuple[int, int] | None) -> npt.NDArray[np.uint8]:
    first = read_image(files[0], channels)
    expected, whose = (size, "the network takes") if size else (first.shape[1:], f"{files[0]} is")
    ensure_fits_memory(len(files) * first.nbytes, files[0].parent)
    images = np.empty((len(files), channels, *expected), dtype=np.uint8)
    for index, path in enumerate(files):
        image = read_image(path, channels)
        if image.shape[1:] != tuple(expected):
            (height, width), (wanted_height, wanted_width) = image.shape[1:], expected
            raise DataError(
                f"this image is {height}×{width} (height × width), {whose} {wanted_height}×{wanted_width}.",
                where=str(path),
                hint="All images have the size of the network's input: resize them.",
            )
        images[index] = image
    return images
