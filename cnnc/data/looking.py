"""A first look at every image of a data set: its header, and with patience all of its pixels."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from cnnc.data.catalogue import Kind, Place, Problem
from cnnc.data.reading import look
from cnnc.data.streamed import CHUNK, WORTH_WORKERS, Decoding
from cnnc.errors import DataError


def look_at(
    rows: npt.NDArray[np.void],
    places: Sequence[Place],
    decoding: Decoding,
    *,
    whole: bool = False,
    done: Callable[[int], None] = lambda count: None,
) -> list[str]:
    """Fill height, width, mode and checksum of `rows`, which lie at `places`.

    Returns what is wrong with each, as ``wrong`` writes it, or an empty text. `done` is told the number of
    images from time to time.
    """
    problems = [""] * len(rows)
    for index, (found, problem) in enumerate(_looked(places, decoding, whole)):
        if found is None:
            problems[index] = problem
        else:
            height, width, mode, checksum = found
            rows[index]["height"], rows[index]["width"] = height, width
            rows[index]["mode"], rows[index]["crc"] = mode.encode(), checksum
        if index % CHUNK == CHUNK - 1:
            done(index + 1)
    return problems


def wrong(what: str, hint: str = "", kind: Kind = "image") -> str:
    """A problem as an index keeps it."""
    return json.dumps([what, hint, kind])


def problem_of(text: str, where: str) -> Problem:
    """The problem that `wrong` wrote, of the example that is called `where`."""
    what, hint, kind = json.loads(text)
    return Problem(where, what, hint, kind)


def _looked(places: Sequence[Place], decoding: Decoding, whole: bool) -> Iterator[tuple[Any, str]]:
    if not decoding.workers or len(places) < (2 * CHUNK if whole else WORTH_WORKERS):
        for place in places:
            try:
                yield look(place, "", whole), ""
            except DataError as error:
                yield None, wrong(error.what, error.hint)
        return
    jobs = (
        {"task": "look", "whole": whole, "places": places[begin : begin + CHUNK]}
        for begin in range(0, len(places), CHUNK)
    )
    for _, answer, _ in decoding.run(jobs):
        problems = {index: wrong(what, hint) for index, what, hint in answer["bad"]}
        for index, found in enumerate(answer["found"]):
            yield found, problems.get(index, "")
