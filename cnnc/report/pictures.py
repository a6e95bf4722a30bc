"""Stored images as pictures: pixels to PNG, and the grid of those the network is most wrong about."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from html import escape

import numpy as np
from PIL import Image

from cnnc.bundle import Array
from cnnc.report import svg
from cnnc.report.answers import Wrong

_LARGEST = 192
"""Pixels on the longer side: what is larger is shrunk, so that a report stays small."""
_TILE, _WORDS = 96, 46
MOST_COLUMNS, LEAST_COLUMNS = 8, 4
TITLE = "Most wrong test images"


def shown(image: Array) -> Image.Image:
    """A stored image [C, H, W], uint8 or float, as a picture: of one channel grey, of three in colour.

    Floats beyond 0…1 are spread over their own range. Of another number of channels the first one is shown.
    What is large is shrunk.
    """
    pixels = np.asarray(image)
    if pixels.dtype != np.uint8:
        low, high = float(pixels.min()), float(pixels.max())
        if low < 0 or high > 1:
            pixels = (pixels - low) / max(high - low, 1e-12)
        pixels = np.rint(pixels * 255).astype(np.uint8)
    picture = Image.fromarray(pixels.transpose(1, 2, 0) if len(pixels) == 3 else pixels[0])
    picture.thumbnail((_LARGEST, _LARGEST))
    return picture


def png(image: Array) -> bytes:
    """What `shown` gives, as a PNG."""
    file = io.BytesIO()
    shown(image).save(file, "PNG", optimize=True)
    return file.getvalue()


def draw_wrong(wrong: Sequence[Wrong], *, probabilities: bool, alone: bool = False) -> str:
    """A grid of images, each with its label and what the network took it for."""
    columns, rows = grid_of(len(wrong))
    parts = [f'<text class="title" x="0" y="18">{TITLE}</text>']
    for place, each in enumerate(wrong):
        x, y = place % columns * (_TILE + 14), 32 + place // columns * (_TILE + _WORDS)
        parts.append(_tile(each, x, y, probabilities))
    width, height = columns * (_TILE + 14) - 14, 32 + rows * (_TILE + _WORDS)
    return svg.document("".join(parts), width, height, TITLE, alone)


def grid_of(count: int) -> tuple[int, int]:
    """Columns and rows for so many images."""
    columns = min(MOST_COLUMNS, max(LEAST_COLUMNS, count))
    return columns, -(-count // columns)


def captions(wrong: Wrong, probabilities: bool) -> tuple[str, str]:
    """What the network took it for, and what it is, each with its score, as short as a tile is wide."""
    said, right = (_score(score, probabilities) for score in (wrong.score, wrong.label_score))
    return _fitted(wrong.prediction, said), f"is {_fitted(wrong.label, right, 12)}"


def _tile(wrong: Wrong, x: float, y: float, probabilities: bool) -> str:
    data = base64.b64encode(png(wrong.image)).decode()
    height, width = wrong.image.shape[-2:]
    crisp = ";image-rendering:pixelated" if max(height, width) < _TILE else ""
    said, right = (_score(s, probabilities) for s in (wrong.score, wrong.label_score))
    tip = escape(f"test image {wrong.index}: {wrong.prediction}{said}, is {wrong.label}{right}")
    taken, label = captions(wrong, probabilities)
    place = f'x="{x}" y="{y}" width="{_TILE}" height="{_TILE}"'
    return (
        f'<g><title>{tip}</title><rect {place} style="fill:var(--panel)"/>'
        f'<image {place} style="{crisp.strip(";")}" href="data:image/png;base64,{data}"/>'
        f'<text x="{x}" y="{y + _TILE + 15}" style="fill:rgb(var(--miss))">'
        f"{escape(taken)}</text>"
        f'<text x="{x}" y="{y + _TILE + 30}">{escape(label)}</text></g>'
    )


def _score(score: float, probabilities: bool) -> str:
    if not probabilities:
        return f" · {score:.3g}"
    return f" · {score:.0%}" if score >= 0.005 else " · <1%"


def _fitted(name: str, score: str, length: int = 15) -> str:
    room = length - len(score)
    return (name if len(name) <= room else name[: room - 1] + "…") + score
