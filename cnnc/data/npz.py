"""NumPy archives: a folder with one ``*train.npz`` and one ``*test.npz``, each with arrays ``x`` and ``y``.

``x`` holds the images as uint8 (or other integers in 0…255), or as floats that are scaled already (and so no
whole numbers above 1, see `cnnc.data.checking.check_scaled`):

- [n, H, W]: one channel;
- [n, C, H, W] or [n, H, W, C]: the axis of 1 or 3, or of as many channels as the network takes, is the
  channels. Where both axes qualify the network's input decides, and else it is an error.

``y`` holds integer class indices or float targets, [n] or [n, 1] (or floats [n, …]). For networks with
several outputs, ``y_<output>`` holds the targets of one, beside ``y`` or in place of it. Nothing is
unpickled.
"""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
from numpy.lib import format as npy

from cnnc.data.dataset import LABELS, Array, Dataset, Split, Wanted
from cnnc.data.files import DEFLATE_RATIO, ensure_fits_memory, file_size, reading
from cnnc.errors import DataError

PATTERNS = ("*train.npz", "*test.npz")


def read_npz(folder: Path, wanted: Wanted) -> Dataset:
    """Read the two archives in `folder`. Raises DataError."""
    train, test = (_read_split(_only(folder, pattern), wanted) for pattern in PATTERNS)
    return Dataset(folder.resolve().name, train, test, wanted.classes)


def _only(folder: Path, pattern: str) -> Path:
    found = sorted(folder.glob(pattern))
    if len(found) != 1:
        names = ", ".join(path.name for path in found)
        raise DataError(
            f"this folder holds {len(found)} files named {pattern} ({names})."
            if found
            else f"this folder holds no file named {pattern}.",
            where=str(folder),
            hint=f"Exactly one {PATTERNS[0]} and one {PATTERNS[1]} make a data set.",
        )
    return found[0]


def _read_split(path: Path, wanted: Wanted) -> Split:
    compressed = file_size(path)
    with reading(path, ".npz file"), zipfile.ZipFile(path) as archive:
        names = {info.filename.removesuffix(".npy") for info in archive.infolist()}
        targets = sorted(name for name in names if name == "y" or name.startswith("y_"))
        if missing := sorted({"x", targets[0] if targets else "y"} - names):
            raise DataError(
                f"this lacks {' and '.join(missing)}; it holds {', '.join(sorted(names)) or 'nothing'}.",
                where=str(path),
                hint="Save it with np.savez(path, x=images, y=labels).",
            )
        x, *arrays = (_read_array(archive, name, path, compressed) for name in ("x", *targets))
    images = _images(x, path, wanted)
    named = {name: _labels(array, path, name) for name, array in zip(targets, arrays, strict=True)}
    for name, labels in named.items():
        if len(images) != len(labels):
            raise DataError(f"x has {len(images)} images, {name} has {len(labels)} labels.", where=str(path))
    labels = named.pop(LABELS, np.zeros((len(images), 0), np.float32))
    return Split(images, labels, str(path), named=named)


def _read_array(archive: zipfile.ZipFile, name: str, path: Path, compressed: int) -> Array:
    """One array, after its header has been compared with what the archive and the file can hold."""
    info = archive.getinfo(f"{name}.npy")
    with archive.open(info) as member:
        version = npy.read_magic(member)
        read_header = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        shape, _, dtype = read_header(member)
        header = member.tell()
    if dtype.hasobject:
        raise DataError(
            f"{name} is an array of Python objects, which only unpickling could read.",
            where=str(path),
            hint="Images of one size and their labels make arrays of numbers: save those.",
        )
    if dtype.kind not in "iufb":
        raise DataError(f"{name} has dtype {dtype}, which is no number.", where=str(path))
    if any(size < 0 for size in shape):
        raise ValueError(f"{name} has the shape {list(shape)}")
    claimed = header + dtype.itemsize * int(np.prod(shape, dtype=object))
    if claimed != info.file_size or claimed > compressed * DEFLATE_RATIO:
        raise ValueError(f"{name} claims {claimed} bytes, which the file doesn't hold")
    ensure_fits_memory(claimed, path)
    with archive.open(info) as member:
        return np.asarray(npy.read_array(member, allow_pickle=False))


def _images(x: Array, path: Path, wanted: Wanted) -> Array:
    if x.ndim == 3:
        x = x[:, None]
    elif x.ndim == 4:
        x = _channels_first(x, path, wanted)
    else:
        raise DataError(
            f"x has the shape {list(x.shape)}.",
            where=str(path),
            hint="Images are [n, H, W], [n, C, H, W] or [n, H, W, C].",
        )
    if x.dtype.kind == "f":
        return np.ascontiguousarray(x, dtype=np.float32)
    if x.dtype.kind == "b" or (x.size and (x.min() < 0 or x.max() > 255)):
        raise DataError(
            f"x is {x.dtype}" + ("." if x.dtype.kind == "b" else f" from {x.min()} to {x.max()}."),
            where=str(path),
            hint="Images are integers from 0 to 255, or floats that are scaled already.",
        )
    return np.ascontiguousarray(x, dtype=np.uint8)


def _channels_first(x: Array, path: Path, wanted: Wanted) -> Array:
    known = {1, 3, wanted.channels}
    readings = [np.moveaxis(x, axis, 1) for axis in (1, 3) if x.shape[axis] in known]
    fitting = [
        reading
        for reading in readings
        if reading.shape[1] == wanted.channels and wanted.size in (None, reading.shape[2:])
    ]
    if len(fitting or readings) == 1:
        return (fitting or readings)[0]
    why = "both axis 1 and axis 3" if readings else "neither axis 1 nor axis 3"
    raise DataError(
        f"x has the shape {list(x.shape)}: {why} could be the channels.",
        where=str(path),
        hint="Images are [n, H, W], [n, C, H, W] or [n, H, W, C] with 1 or 3 channels.",
    )


def _labels(y: Array, path: Path, name: str = LABELS) -> Array:
    if y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]
    if y.dtype.kind == "f" and y.ndim:
        return y.astype(np.float32)
    if y.ndim not in (1, 3):
        raise DataError(
            f"{name} is {y.dtype} of shape {list(y.shape)}.",
            where=str(path),
            hint="Class labels are indices, [n] or for each pixel [n, H, W]: np.argmax(y, axis=1) turns "
            "one-hot rows into them.",
        )
    if y.dtype.kind == "u" and y.size and y.max() > np.iinfo(np.int64).max:
        raise DataError(
            f"{name} holds the label {y.max()}.", where=str(path), hint="Class labels are indices from 0."
        )
    return y.astype(np.int64)
