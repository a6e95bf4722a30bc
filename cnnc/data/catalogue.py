"""Where the examples of an image data set lie: a table that the readers fill and an index keeps."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from cnnc.errors import DataError

Kind = Literal["data", "image", "class", "note"]
Place = tuple[str, int, int]
"""A file and the bytes of it that are one example, as (path, offset, size)."""

ROW = np.dtype(
    [
        ("file", "<i4"),  # the file's place in `Catalogue.files`
        ("offset", "<i8"),
        ("size", "<i8"),
        ("label", "<i4"),  # the class's place in `Catalogue.classes`
        ("height", "<i4"),  # as shown upright; 0 where the image has not been looked at or is bad
        ("width", "<i4"),
        ("mode", "S8"),  # Pillow's name of its pixels
        ("crc", "<u4"),  # CRC-32 of the first bytes
    ]
)


@dataclass(frozen=True)
class Problem:
    """Something wrong with a data set: ``data`` with its layout, ``image`` with one example.

    A ``class`` is one without an example. Training stops at the first kind; `on_bad_image` says whether it
    stops at the others or skips them. A ``note`` keeps nothing from training.
    """

    where: str
    what: str
    hint: str = ""
    kind: Kind = "data"

    @classmethod
    def of(cls, error: DataError, kind: Kind = "image") -> Problem:
        """The problem that an error tells."""
        return cls(error.where, error.what, error.hint, kind)

    def error(self) -> DataError:
        """The same as an exception."""
        return DataError(self.what, where=self.where, hint=self.hint)


@dataclass(frozen=True, eq=False)
class Catalogue:
    """The examples of one split, in the order of the data set.

    `rows` is a table of `ROW`; `files` are paths relative to `root`; `names` say what each example is called
    inside its file, and are empty where a file is one example. `stored` are the files that hold the bytes,
    where these are others (of a table, whose images were unpacked). `decoder` is ``image`` for image files,
    ``planes`` for raw uint8 [C, H, W]. `problems` are the examples that are known to be bad, by row.
    """

    root: str
    files: Sequence[str]
    rows: npt.NDArray[np.void]
    classes: tuple[str, ...]
    names: Sequence[str] = ()
    decoder: Literal["image", "planes"] = "image"
    problems: dict[int, Problem] = field(default_factory=dict)
    stored: Sequence[str] = ()

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def labels(self) -> npt.NDArray[np.int64]:
        """The class index of each example, in the catalogue's own `classes`."""
        return self.rows["label"].astype(np.int64)

    def places(self, indices: Iterable[int]) -> list[Place]:
        """Where these examples lie."""
        rows, files = self.rows[np.asarray(indices, dtype=np.int64)], self.stored or self.files
        return [
            (os.path.join(self.root, files[file]), offset, size)
            for file, offset, size in zip(
                rows["file"].tolist(), rows["offset"].tolist(), rows["size"].tolist(), strict=True
            )
        ]

    def where(self, index: int) -> str:
        """What messages call an example: its file, and its name in there."""
        path = str(Path(self.root, self.files[self.rows["file"][index]]))
        return f"{path}: {self.names[index]}" if self.names and self.names[index] else path

    def digest(self) -> str:
        """SHA-256 over names, classes, sizes and checksums: the same wherever the folder lies."""
        whole = hashlib.sha256(self.decoder.encode())
        names = self.names or [self.files[file] for file in self.rows["file"].tolist()]
        classes = [*sorted({self.classes[label] for label in self.rows["label"].tolist() if label >= 0})]
        number = {name: index for index, name in enumerate(classes)}
        for text in (*classes, "", *names):
            whole.update(os.fsencode(text) + b"\0")
        table = np.array([*(number.get(name, -1) for name in self.classes), -1], "<i4")
        for column in (self.rows["size"], table[self.rows["label"]], self.rows["crc"]):
            whole.update(np.ascontiguousarray(column).data)
        return whole.hexdigest()
