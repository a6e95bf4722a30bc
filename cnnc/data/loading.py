"""From what the user names to a data set: the tables of known names and of file formats."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from cnnc.bundle import Manifest, Preprocessing, TensorSpec
from cnnc.data import cifar, folder, idx, npz, parquet, shards
from cnnc.data.assembling import Survey
from cnnc.data.class_names import label_names
from cnnc.data.dataset import Dataset, OnBadImage, Wanted
from cnnc.data.digits import read_digits
from cnnc.data.download import SOURCES, read_download
from cnnc.errors import DataError, UsageError, did_you_mean


@dataclass(frozen=True)
class Format:
    """A way to store a data set in a folder: any entry that matches one of `patterns` is a sign of it.

    `survey` finds all that is in it, good and bad, where it holds image files.
    """

    title: str
    patterns: tuple[str, ...]
    read: Callable[[Path, Wanted], Dataset]
    survey: Callable[[Path, Wanted], Survey] | None = None


NAMED: dict[str, Callable[[Wanted], Dataset]] = {
    "digits": read_digits,
    **{name: partial(read_download, name) for name in SOURCES},
}
FORMATS = (
    Format("NumPy archives", npz.PATTERNS, npz.read_npz),
    Format("IDX files", idx.PATTERNS, idx.read_idx),
    Format("CIFAR files", cifar.PATTERNS, cifar.read_cifar, cifar.survey_cifar),
    Format("tar shards", shards.PATTERNS, shards.read_shards, shards.survey_shards),
    Format("Parquet files", parquet.PATTERNS, parquet.read_parquet, parquet.survey_parquet),
    Format("image folders", folder.PATTERNS, folder.read_folders, folder.survey_folders),
)


def load(
    spec: str | os.PathLike[str],
    *,
    classes: tuple[str, ...] | None = None,
    channels: int | None = None,
    size: tuple[int, int] | None = None,
    preprocessing: Preprocessing | None = None,
    on_bad_image: OnBadImage = "stop",
    workers: int | None = None,
) -> Dataset:
    """The data set called `spec` (``digits``, ``mnist``, ``fashion-mnist``), or in the folder at `spec`.

    What a folder holds is detected: NumPy archives, IDX or CIFAR files, tar shards, Parquet files or image
    folders (see `cnnc.data.npz`, `.idx`, `.cifar`, `.shards`, `.parquet` and `.folder`). `classes` are the
    network's names of its classes, `channels` and `size` (height, width) its input; they settle what the data
    leaves open, and `preprocessing` says how image files get that size. `on_bad_image` says whether an image
    that can't be read stops the reading or is skipped. Image files are decoded by `workers` processes ahead
    of their use; by default only where they don't fit in memory decoded (256 MiB). Raises DataError where the
    data is missing, damaged or ambiguous. Whether it fits a network is `check`'s to say.
    """
    wanted = Wanted(
        tuple(classes or ()), channels, size, preprocessing or Preprocessing(), on_bad_image, workers
    )
    return load_wanted(spec, wanted)


def load_wanted(spec: str | os.PathLike[str], wanted: Wanted) -> Dataset:
    """`load`, for a network that expects `wanted`."""
    if spec in NAMED:
        return NAMED[str(spec)](wanted)
    path = Path(spec)
    try:
        return format_of(path).read(path, wanted)
    except OSError as error:  # a path too long, or without permission
        raise DataError(f"this can't be read: {error.strerror}.", where=str(path)) from error


def load_for(
    manifest: Manifest,
    spec: str | os.PathLike[str],
    *,
    on_bad_image: OnBadImage = "stop",
    workers: int | None = None,
) -> Dataset:
    """`load`, where the network that `manifest` describes settles what the data leaves open."""
    return load_wanted(spec, replace(wanted_by(manifest), on_bad_image=on_bad_image, workers=workers))


def wanted_by(manifest: Manifest) -> Wanted:
    """What the network that `manifest` describes expects of its data."""
    return wanted_of(manifest.input, label_names(manifest.heads), manifest.preprocessing)


def wanted_of(spec: TensorSpec, classes: Sequence[str], preprocessing: Preprocessing) -> Wanted:
    """What a network with the input `spec` expects of its data."""
    channels, *size = spec.shape[1:]
    return Wanted(
        tuple(classes),
        channels if isinstance(channels, int) else None,
        (int(size[0]), int(size[1])) if len(size) == 2 and all(isinstance(d, int) for d in size) else None,
        preprocessing,
    )


def default_for(manifest: Manifest) -> str:
    """The known data set that is called as the network is. Raises UsageError where there is none."""
    if manifest.name in NAMED:
        return manifest.name
    raise UsageError(
        f"there is no data set called '{manifest.name}', as the network is.",
        hint=f"Say what to use with --data: {', '.join(NAMED)}, or a folder.",
    )


def format_of(path: Path) -> Format:
    """The format of the data set in a folder. Raises DataError where there is none, or several."""
    if not path.exists():
        raise DataError(
            "there is no such folder, and no data set of this name.",
            where=str(path),
            hint=did_you_mean(str(path), NAMED),
        )
    if not path.is_dir():
        raise DataError("this is a file.", where=str(path), hint="Give the folder that holds the data set.")
    found = [form for form in FORMATS if any(any(path.glob(pattern)) for pattern in form.patterns)]
    if len(found) == 1:
        return found[0]
    if found:
        titles = " and ".join(form.title for form in found)
        raise DataError(
            f"this folder holds {titles}: which to read?", where=str(path), hint="Keep one of them."
        )
    known = "; ".join(f"{form.title} ({', '.join(form.patterns)})" for form in FORMATS)
    raise DataError("this folder holds no data set cnnc knows.", where=str(path), hint=f"Looked for {known}.")
