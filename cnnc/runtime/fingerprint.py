"""What a resumed run must find as it was: the data it began with."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from cnnc.data import Dataset, Split, batches


def fingerprint(dataset: Dataset) -> dict[str, Any]:
    """The data set in a few words and numbers, and a SHA-256 of each split's images and labels.

    Of image files it is of their sizes, names and beginnings, so that a large data set need not be read.
    """
    return {
        "name": dataset.name,
        "classes": list(dataset.classes),
        **{
            part: {"examples": len(split), "sha256": split.digest or _digest(split)}
            for part, split in (("train", dataset.train), ("test", dataset.test))
        },
    }


def data_difference(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """How the data differ from those a run began with, in half a sentence; empty where they don't."""
    said = []
    for part, words in (("train", "training"), ("test", "test")):
        ours, theirs = before[part], now[part]
        if ours["examples"] != theirs["examples"]:
            said.append(f"{ours['examples']} {words} examples then, {theirs['examples']} now")
        elif ours["sha256"] != theirs["sha256"]:
            said.append(f"other images or labels among the {ours['examples']} {words} examples")
    if before["classes"] != now["classes"]:
        said.append(f"the classes {_list(before['classes'])} then, {_list(now['classes'])} now")
    return "; ".join(said)


def _list(names: list[str]) -> str:
    return f"{', '.join(names[:10])}{', …' if len(names) > 10 else ''} ({len(names)})"


def _digest(split: Split) -> str:
    whole = hashlib.sha256()
    for part in batches(split, 4096):
        for array in (part.images, part.labels, *(part.named[name] for name in sorted(part.named))):
            whole.update(f"{array.dtype.name} {list(array.shape)}\n".encode())
            whole.update(np.ascontiguousarray(array).data)
    return whole.hexdigest()
