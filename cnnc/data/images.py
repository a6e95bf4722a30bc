"""Image files to pixels: which files are read, what is refused, and how an image gets the network's size.

Everything here takes the bytes of one file, wherever they came from: a folder, a tar shard, a table.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from cnnc.bundle import Preprocessing, Resize
from cnnc.data.files import file_size, reading
from cnnc.errors import DataError

if TYPE_CHECKING:
    from PIL.Image import Image

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
SIZE_LIMIT = 2**29
"""Larger files, in bytes, are refused before they are read: no image within the limit of pixels needs it."""
GRAY_MODES = {"1", "L", "LA", "I;16", "I;16B", "I;16L"}
COLOUR_MODES = {"P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr"}
DEEP_MODES = {"I;16", "I;16B", "I;16L"}
DRAFT_GAP = 2.0
"""A JPEG may be decoded at a half, a quarter or an eighth, but never below so many times the size it will
have: what resampling makes of it then differs too little to be seen (Pillow's notes on `reducing_gap`)."""


@dataclass(frozen=True)
class Form:
    """What images become: 1 or 3 channels, and (height, width), reached as `resize` says (None: as stored).

    `exact` images must have that size already. `stretch` ignores their proportions. `crop` takes the largest
    centred rectangle of the network's proportions, or the share `crop` of its height and width. `pad` keeps
    all of the image and adds black margins. Resampling is bilinear, averaging where it shrinks.
    """

    channels: int
    size: tuple[int, int] | None = None
    resize: Resize = "exact"
    crop: float = 1.0

    @classmethod
    def of(cls, channels: int, size: tuple[int, int] | None, preprocessing: Preprocessing) -> Form:
        """The form that a graph's input and preprocessing ask for."""
        return cls(channels, size, preprocessing.resize, preprocessing.crop)


@dataclass(frozen=True)
class Header:
    """What the first bytes of an image say: (height, width) as shown upright, and Pillow's mode."""

    size: tuple[int, int]
    mode: str

    @property
    def coloured(self) -> bool:
        """Whether RGB holds more of it than gray does."""
        return self.mode in COLOUR_MODES


def read_image(path: Path, form: Form | int) -> npt.NDArray[np.uint8]:
    """One image file as uint8 [C, H, W], upright, in this form (or only its channels). Raises DataError."""
    return decode(read_bytes(path), form if isinstance(form, Form) else Form(form), str(path))


def read_bytes(path: Path) -> bytes:
    """The whole of an image file. Raises DataError where it is missing, special, empty or far too large."""
    size = file_size(path)
    if size > SIZE_LIMIT:
        raise DataError(f"this file has {size} bytes, over the limit of {SIZE_LIMIT:,}.", where=str(path))
    with reading(path, "image file"):
        return path.read_bytes()


def decode(data: bytes, form: Form, where: str) -> npt.NDArray[np.uint8]:
    """The image file `data` as uint8 [C, H, W], upright, in this form. Raises DataError about `where`."""
    if form.channels not in (1, 3):
        raise DataError(f"the network takes {form.channels} channels, image files give 1 or 3.", where=where)
    with _opened(data, where) as image:
        _check(image, where)
        turned = _turned(image)
        size = _upright(image.size, turned)
        if form.resize == "exact" and form.size and size != form.size:
            raise wrong_size(size, "the network takes", form.size, where)
        if form.size and image.format == "JPEG":
            _draft(image, form, size, turned)
        pixels = _fitted(_converted(image, form.channels, turned), form)
    return np.ascontiguousarray(np.atleast_3d(pixels).transpose(2, 0, 1))


def read_header(data: bytes, where: str) -> Header:
    """What the header of the image file `data` says; no pixel is decoded. Raises DataError, as `decode`."""
    with _opened(data, where) as image:
        _check(image, where)
        return Header(_upright(image.size, _turned(image)), image.mode)


def wrong_size(size: tuple[int, int], whose: str, wanted: tuple[int, int], where: str) -> DataError:
    """The error about an image of this (height, width) among images of another."""
    return DataError(
        f"this image is {size[0]}×{size[1]} (height × width), {whose} {wanted[0]}×{wanted[1]}.",
        where=where,
        hint="All images have the size of the network's input: resize them, or say how cnnc should, such as "
        'Tensor(…, resize="crop") in the graph file.',
    )


@contextmanager
def _opened(data: bytes, where: str) -> Iterator[Image]:
    """The image, its header read; Pillow loads with the first one, as most data holds none."""
    import PIL.Image

    if not data:
        raise DataError("this file is empty.", where=where, hint="Get a fresh copy.")
    formats = sorted({*FORMATS.values()})
    with reading(where, "image file"):
        try:
            image = PIL.Image.open(io.BytesIO(data), formats=formats)
        except PIL.UnidentifiedImageError:
            raise ValueError(f"its bytes are those of none of {', '.join(formats)}") from None
        except PIL.Image.DecompressionBombError as error:
            raise DataError(
                f"this image claims far more pixels than the limit of {PIXEL_LIMIT:,}.",
                where=where,
                hint="It may be made to exhaust the memory.",
            ) from error
        with image:
            yield image


def _check(image: Image, where: str) -> None:
    if image.width * image.height > PIXEL_LIMIT:
        raise DataError(
            f"this image has {image.width}×{image.height} pixels, over the limit of {PIXEL_LIMIT:,}.",
            where=where,
        )
    if image.mode not in GRAY_MODES | COLOUR_MODES:
        raise DataError(
            f"this image has pixels of mode {image.mode}, not 8 or 16 bits a channel.",
            where=where,
            hint="Convert it to an 8-bit image, or store the data as .npz.",
        )
    if getattr(image, "n_frames", 1) > 1:
        raise DataError("this file holds several images.", where=where, hint="Store one a file.")


def _turned(image: Image) -> int:
    """The EXIF orientation, 1 (upright) to 8."""
    orientation = image.getexif().get(0x0112, 1)
    return orientation if isinstance(orientation, int) and 1 <= orientation <= 8 else 1


def _upright(size: tuple[int, int], turned: int) -> tuple[int, int]:
    """(height, width) of an image that is (width, height) as stored."""
    return size if turned >= 5 else size[::-1]


def _draft(image: Image, form: Form, size: tuple[int, int], turned: int) -> None:
    """Let the JPEG decoder shrink the image by a power of two, where it stays large enough."""
    assert form.size is not None
    needed = [math.ceil(DRAFT_GAP * length) for length in _scaled(size, form)]
    if min(size[0] / needed[0], size[1] / needed[1]) >= 2:
        image.draft("L" if form.channels == 1 else "RGB", _upright((needed[1], needed[0]), turned)[::-1])


def _scaled(size: tuple[int, int], form: Form) -> tuple[float, float]:
    """The (height, width) that the whole image is scaled to, before anything is cut off or added."""
    assert form.size is not None
    scales = [wanted / length for wanted, length in zip(form.size, size, strict=True)]
    if form.resize == "crop":
        scales = [max(scales) / form.crop] * 2
    elif form.resize == "pad":
        scales = [min(scales)] * 2
    return scales[0] * size[0], scales[1] * size[1]


def _converted(image: Image, channels: int, turned: int) -> Image:
    """Upright, in mode L or RGB. Of 16 bits the upper 8 stay, as Pillow itself keeps them of deep RGB."""
    import PIL.Image
    from PIL import ImageOps

    if turned != 1:
        image = ImageOps.exif_transpose(image)
    if image.mode in DEEP_MODES:
        image = PIL.Image.fromarray((np.asarray(image).astype(np.uint16) >> 8).astype(np.uint8))
    mode = "RGB" if channels == 3 else "L"
    return image if image.mode == mode else image.convert(mode)


def _fitted(image: Image, form: Form) -> npt.NDArray[np.uint8]:
    """The pixels [H, W] or [H, W, 3] at the size of the form."""
    import PIL.Image

    if form.size is None or (image.size == form.size[::-1] and (form.resize != "crop" or form.crop == 1)):
        return np.asarray(image)
    (height, width), bilinear = form.size, PIL.Image.Resampling.BILINEAR
    if form.resize == "crop":
        scale = form.crop * min(image.width / width, image.height / height)
        left, top = (image.width - scale * width) / 2, (image.height - scale * height) / 2
        box = (left, top, left + scale * width, top + scale * height)
        return np.asarray(image.resize((width, height), bilinear, box=box))
    if form.resize == "pad":
        scale = min(width / image.width, height / image.height)
        inner = (max(1, round(scale * image.width)), max(1, round(scale * image.height)))
        canvas = PIL.Image.new(image.mode, (width, height))
        canvas.paste(image.resize(inner, bilinear), ((width - inner[0]) // 2, (height - inner[1]) // 2))
        return np.asarray(canvas)
    return np.asarray(image.resize((width, height), bilinear))
