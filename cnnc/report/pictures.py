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
_COLUMNS, _TILE, _WORDS = 8, 96, 46


def png(image: Array) -> bytes:
    """A stored image [C, H, W], uint8 or float, as a PNG: of one channel grey, of three in colour.

    Floats beyond 0…1 are spread over their own range. Of another number of channels the first one is shown.
    """
    pixels = np.asarray(image)
    if pixels.dtype != np.uint8:
        low, high = float(pixels.min()), float(pixels.max())
        if low < 0 or high > 1:
            pixels = (pixels - low) / max(high - low, 1e-12)
        pixels = np.rint(pixels * 255).astype(np.uint8)
    picture = Image.fromarray(pixels.transpose(1, 2, 0) if len(pixels) == 3 else pixels[0])
    picture.thumbnail((_LARGEST, _LARGEST))
    file = io.BytesIO()
    picture.save(file, "PNG", optimize=True)
    return file.getvalue()


def draw_wrong(wrong: Sequence[Wrong], *, probabilities: bool, alone: bool = False) -> str:
    """A grid of images, each with its label and what the network took it for."""
    columns = min(_COLUMNS, max(4, len(wrong)))
    rows = -(-len(wrong) // columns)
    title = "Most wrong test images"
    parts = [f'<text class="title" x="0" y="18">{title}</text>']
    for place, each in enumerate(wrong):
        x, y = place % columns * (_TILE + 14), 32 + place // columns * (_TILE + _WORDS)
        parts.append(_tile(each, x, y, probabilities))
    width, height = columns * (_TILE + 14) - 14, 32 + rows * (_TILE + _WORDS)
    return svg.document("".join(parts), width, height, title, alone)


def _tile(wrong: Wrong, x: float, y: float, probabilities: bool) -> str:
    data = base64.b64encode(png(wrong.image)).decode()
    height, width = wrong.image.shape[-2:]
    crisp = ";image-rendering:pixelated" if max(height, width) < _TILE else ""
    said, right = (_score(s, probabilities) for s in (wrong.score, wrong.label_score))
    tip = escape(f"test image {wrong.index}: {wrong.prediction}{said}, is {wrong.label}{right}")
    place = f'x="{x}" y="{y}" width="{_TILE}" height="{_TILE}"'
    return (
        f'<g><title>{tip}</title><rect {place} style="fill:var(--panel)"/>'
        f'<image {place} style="{crisp.strip(";")}" href="data:image/png;base64,{data}"/>'
        f'<text x="{x}" y="{y + _TILE + 15}" style="fill:rgb(var(--miss))">'
        f"{escape(_fitted(wrong.prediction, said))}</text>"
        f'<text x="{x}" y="{y + _TILE + 30}">is {escape(_fitted(wrong.label, right, 12))}</text></g>'
    )


def _score(score: float, probabilities: bool) -> str:
    if not probabilities:
        return f" · {score:.3g}"
    return f" · {score:.0%}" if score >= 0.005 else " · <1%"


def _fitted(name: str, score: str, length: int = 15) -> str:
    room = length - len(score)
    return (name if len(name) <= room else name[: room - 1] + "…") + score
