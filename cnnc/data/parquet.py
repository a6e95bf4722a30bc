"""Parquet files with the bytes of images, as Hugging Face's data sets come: ``train-0000.parquet``, ….

A column ``image`` (or ``img``) holds the bytes of an image file, plain or as the field ``bytes`` of a struct;
``label`` (or ``fine_label``, ``labels``, ``class``) a number or a name. Reading a table in random order
would unpack it over and over, so its images are written to a file in the cache folder once. Reading needs
pyarrow, the extra ``[parquet]``.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from cnnc.data.assembling import Survey, assemble
from cnnc.data.dataset import Dataset, Wanted
from cnnc.data.download import cache_folder
from cnnc.data.files import file_size, reading
from cnnc.data.index import Index
from cnnc.data.looking import wrong
from cnnc.data.shards import Rows, label_text, look_at_index, split_files, survey_files
from cnnc.data.streamed import Decoding, default_workers
from cnnc.errors import DataError

PATTERNS = ("*train*.parquet", "*test*.parquet")
IMAGE_COLUMNS = ("image", "img")
LABEL_COLUMNS = ("label", "fine_label", "labels", "class")
BATCH = 256
"""Rows that are in memory at once."""


def read_parquet(folder: Path, wanted: Wanted) -> Dataset:
    """Read the tables in `folder`. Raises DataError."""
    return assemble(survey_parquet(folder, wanted), wanted)


def survey_parquet(folder: Path, wanted: Wanted) -> Survey:
    """All that is in the tables. Raises DataError where one can't be read."""
    _pyarrow(folder)
    train, test = split_files(folder, ".parquet")
    decoding = Decoding(default_workers() if wanted.workers is None else wanted.workers)
    names = _class_names(folder / train[0])
    survey = survey_files(folder, "Parquet files", train, test, partial(_learn, folder, decoding), names)
    for name in (*train, *test):
        if not _unpacked(folder / name).exists():  # somebody tidied the cache folder up
            _unpack(folder / name, Rows())
    stored = [str(_unpacked(folder / name)) for name in (*train, *test)]
    splits = {name: replace(catalogue, stored=stored) for name, catalogue in survey.splits.items()}
    return replace(survey, splits=splits)


def _pyarrow(folder: Path) -> Any:
    try:
        import pyarrow.parquet
    except ImportError as error:
        raise DataError(
            "reading Parquet files needs pyarrow, which is not installed.",
            where=str(folder),
            hint="Install the extra: pip install 'cnnc[parquet]'.",
        ) from error
    return pyarrow.parquet


def _learn(folder: Path, decoding: Decoding, files: Sequence[str]) -> Index:
    rows = Rows()
    for name in files:
        _unpack(folder / name, rows)
    return look_at_index(rows.index(files), [str(_unpacked(folder / name)) for name in files], decoding)


def _unpacked(path: Path) -> Path:
    """Where the images of a table are kept."""
    status = path.stat()
    key = f"{path.resolve()} {status.st_size} {status.st_mtime_ns}"
    return cache_folder() / "parquet" / f"{hashlib.sha256(os.fsencode(key)).hexdigest()[:32]}.images"


def _unpack(path: Path, rows: Rows) -> None:
    """Write the images of a table one behind the other, whole or not at all, and add its rows."""
    parquet, target = _pyarrow(path.parent), _unpacked(path)
    file_size(path)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=".images.")
    except OSError as error:
        raise DataError(
            f"the images of Parquet files can't be kept here: {error.strerror}.",
            where=str(target.parent),
            hint="Set CNNC_CACHE to a folder with room that you may write to.",
        ) from error
    try:
        with os.fdopen(handle, "wb") as file, rows.file(), reading(path, "Parquet file"):
            table = parquet.ParquetFile(path)
            image, label = (_column(path, table, names) for names in (IMAGE_COLUMNS, LABEL_COLUMNS))
            number = 0
            for batch in table.iter_batches(BATCH, columns=[image, label]):
                for data, value in zip(*(column.to_pylist() for column in batch.columns), strict=True):
                    _add(rows, file, f"row {number}", data, value)
                    number += 1
        os.replace(temporary, target)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _column(path: Path, table: Any, names: Sequence[str]) -> str:
    found = table.schema_arrow.names
    for name in names:
        if name in found:
            return name
    raise DataError(
        f"this table has no column {' or '.join(names)}; it has {', '.join(found[:10])}.",
        where=str(path),
        hint="Rename its columns to image (the bytes of an image file) and label.",
    )


def _add(rows: Rows, file: Any, name: str, data: Any, value: Any) -> None:
    data = data.get("bytes") if isinstance(data, dict) else data
    if not isinstance(data, bytes) or not data:
        rows.add(name, 0, 0, None, wrong("this row holds no image.", "Images are the bytes of image files."))
        return
    label, problem = None, ""
    try:
        label = label_text(value)
    except ValueError as error:
        problem = wrong(f"this row can't be used: {error}.")
    rows.add(name, file.tell(), len(data), label, problem)
    file.write(data)


def _class_names(path: Path) -> tuple[str, ...]:
    """The names of numbered classes, where a Hugging Face data set tells them."""
    with reading(path, "Parquet file"):
        file_size(path)
        metadata = _pyarrow(path.parent).ParquetFile(path).schema_arrow.metadata or {}
    try:
        features = json.loads(metadata.get(b"huggingface", b"{}"))["info"]["features"]
        names = next(features[name]["names"] for name in LABEL_COLUMNS if name in features)
        return tuple(map(str, names))
    except (ValueError, LookupError, TypeError, StopIteration):
        return ()
