"""The picture of a search for the learning rate."""

from __future__ import annotations

import os
from pathlib import Path

from cnnc.errors import RunError, os_errors_as
from cnnc.report.figure import Chart, Mark, Series
from cnnc.report.svg import draw_chart
from cnnc.runtime.files import write_whole
from cnnc.runtime.probing import RateSearch


def rate_chart(found: RateSearch) -> Chart:
    """The smoothed loss over the learning rate, with the suggestion marked."""
    marks = () if found.suggestion is None else (Mark(found.suggestion, f"{found.suggestion:.2g}"),)
    series = Series("loss", found.rates, found.losses)
    return Chart(
        "lr_find", "Loss while the learning rate grows", "learning rate", (series,), marks, log_x=True
    )


def write_rate_picture(found: RateSearch, path: str | os.PathLike[str]) -> Path:
    """Draw the search into an SVG file at `path`. Raises RunError."""
    path = Path(path)
    with os_errors_as(
        RunError, "the picture can't be written", where=path, hint="Choose another place with -o."
    ):
        write_whole(path, draw_chart(rate_chart(found), alone=True).encode())
    return path
