"""A run directory: everything one training run used and made.

::

    RUN/bundle/             a copy of the bundle it trains
    RUN/settings.json       the settings, and digests of the data and of the bundle's manifest
    RUN/metrics.csv         one row an epoch
    RUN/confusion_matrix.csv   that of the last evaluation, where the bundle counts one
    RUN/last.safetensors    where --resume goes on (and last.previous.safetensors)
    RUN/best.safetensors    the state with the best test metric
    RUN/summary.json        written at the end
    RUN/lock                locked by the process that trains
"""

from __future__ import annotations

import csv
import fcntl
import hashlib
import io
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from cnnc.bundle import GRAPHS, MANIFEST, STATE, Array, Bundle, file_hash
from cnnc.data import Dataset, batches
from cnnc.errors import BundleError, CnncError, RunError
from cnnc.runtime import history
from cnnc.runtime.checkpoint import LAST, Checkpoint, Progress, save
from cnnc.runtime.files import TEMPORARY, flush_folder, umask, write_whole
from cnnc.runtime.settings import Settings

BUNDLE, SETTINGS, METRICS, SUMMARY, LOCK = "bundle", "settings.json", "metrics.csv", "summary.json", "lock"
MATRIX = "confusion_matrix.csv"
_FORMAT, _VERSION = "cnnc-run", 1
_RESTORE = "Restore the run from a copy, or train anew."


@dataclass(frozen=True)
class Run:
    """A run directory whose settings and bundle were whole and unaltered when it was opened.

    `data` is the `fingerprint` of the data set the run began with.
    """

    path: Path
    bundle: Bundle
    settings: Settings
    data: str

    @classmethod
    def create(
        cls,
        path: str | os.PathLike[str] | None,
        bundle: Bundle,
        settings: Settings,
        data: str,
        state: Mapping[str, Array],
        columns: Sequence[str],
    ) -> Run:
        """Make a new run that starts from `state`, whole or not at all; None means runs/<bundle>-<n>.

        `columns` are those of metrics.csv. Raises RunError where `path` holds a run or anything else, or
        can't be written.
        """
        folder = _default_path(bundle.manifest.name) if path is None else Path(path)
        check_free(folder)
        header = history.header(columns)
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
            try:
                (temporary / BUNDLE).mkdir()
                for name in (*GRAPHS, STATE, MANIFEST):
                    shutil.copyfile(bundle.path / name, temporary / BUNDLE / name)
                draft = cls(temporary, Bundle.open(temporary / BUNDLE), settings, data)
                draft._write_settings()
                write_whole(temporary / METRICS, header)
                save(temporary / LAST, Checkpoint(state, Progress(history=history.digest(header))))
                (temporary / LOCK).touch()
                temporary.chmod(0o777 & ~umask())
                temporary.rename(folder)
            except BaseException:
                shutil.rmtree(temporary, ignore_errors=True)
                raise
            flush_folder(folder.parent)
        except OSError as error:
            raise RunError(
                f"the run can't be written: {error.strerror or error}.",
                where=str(folder),
                hint="Choose another folder with -o.",
            ) from error
        return cls(folder, Bundle(folder / BUNDLE, draft.bundle.manifest), settings, data)

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Run:
        """Open an existing run. Raises RunError where a file is missing, truncated or altered."""
        folder = Path(path)
        if not folder.is_dir():
            raise RunError("there is no such run.", where=str(folder), hint="Start one with `cnnc train`.")
        where = folder / SETTINGS
        try:
            record = json.loads(where.read_text(encoding="utf-8"))
            if record.pop("sha256") != _digest(record):
                raise ValueError("its SHA-256 is another than it was written with")
            if (record["format"], record["version"]) != (_FORMAT, _VERSION):
                raise ValueError(f"it is not of {_FORMAT} version {_VERSION}")
            settings = Settings(**record["settings"])
            bundle = Bundle.open(folder / BUNDLE)
            if file_hash(bundle.path / MANIFEST) != record["manifest"]:
                raise BundleError("this file is altered.", where=str(bundle.path / MANIFEST))
            return cls(folder, bundle, settings, record["data"])
        except FileNotFoundError:
            raise RunError(
                f"this folder is no run: it has no {SETTINGS}.",
                where=str(folder),
                hint="Name a folder that `cnnc train` wrote.",
            ) from None
        except BundleError as error:
            raise RunError(error.what, where=error.where, hint=_RESTORE) from error
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, CnncError) as error:
            raise RunError(
                f"the settings can't be read: {error}.", where=str(where), hint=_RESTORE
            ) from error

    def with_settings(self, settings: Settings) -> Run:
        """The same run with other settings, written to disk. Raises RunError."""
        run = replace(self, settings=settings)
        try:
            run._write_settings()
        except OSError as error:
            raise _unwritable(self.path, error) from error
        return run

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the run for this process. Raises RunError where another process trains it."""
        try:
            file = (self.path / LOCK).open("a")
        except OSError as error:
            raise _unwritable(self.path, error) from error
        with file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise RunError(
                    "another process is training this run.",
                    where=str(self.path),
                    hint="Wait for it, or start another run with -o.",
                ) from None
            for leftover in self.path.glob(f"{TEMPORARY}*"):  # of a process that was killed
                leftover.unlink(missing_ok=True)
            yield

    def write_summary(self, record: Mapping[str, Any]) -> None:
        """Write summary.json, which marks the run as finished. Raises RunError."""
        try:
            write_whole(self.path / SUMMARY, (json.dumps(record, indent=1) + "\n").encode())
        except OSError as error:
            raise _unwritable(self.path, error) from error

    def write_matrix(self, matrix: Sequence[Sequence[int]]) -> None:
        """Write confusion_matrix.csv: a line a label, a column a prediction. Raises RunError."""
        names = self.bundle.manifest.classes
        if len(names) != len(matrix):
            names = tuple(map(str, range(len(matrix))))
        text = io.StringIO()
        lines = csv.writer(text, lineterminator="\n")
        lines.writerow(["label", *names])
        lines.writerows([name, *row] for name, row in zip(names, matrix, strict=True))
        try:
            write_whole(self.path / MATRIX, text.getvalue().encode())
        except OSError as error:
            raise _unwritable(self.path, error) from error

    def _write_settings(self) -> None:
        record = {
            "format": _FORMAT,
            "version": _VERSION,
            "settings": asdict(self.settings),
            "data": self.data,
            "manifest": file_hash(self.bundle.path / MANIFEST),
        }
        record["sha256"] = _digest(record)
        write_whole(self.path / SETTINGS, (json.dumps(record, indent=1) + "\n").encode())


def check_free(path: str | os.PathLike[str]) -> None:
    """Raise RunError unless there is nothing at `path`, or an empty folder."""
    folder = Path(path)
    if not folder.exists() and not folder.is_symlink():
        return
    if not folder.is_dir():
        raise RunError("a file of this name exists.", where=str(folder), hint="Choose another name with -o.")
    if (folder / SETTINGS).exists():
        raise RunError(
            "there is a run here already.",
            where=str(folder),
            hint=f"Go on with it: `cnnc train --resume {folder}`; or choose another folder with -o.",
        )
    if any(folder.iterdir()):
        raise RunError(
            "this folder exists and holds something else than a run.",
            where=str(folder),
            hint="Choose another folder with -o, or empty this one.",
        )


def fingerprint(dataset: Dataset) -> str:
    """The data set in words, with a SHA-256 over images and labels: a resumed run must see the same.

    Of image files these are their sizes, names and beginnings, so that a large data set need not be read.
    """
    whole = hashlib.sha256()
    for split in (dataset.train, dataset.test):
        if split.digest:
            whole.update(split.digest.encode())
            continue
        for part in batches(split, 4096):
            for array in (part.images, part.labels):
                whole.update(f"{array.dtype.name} {list(array.shape)}\n".encode())
                whole.update(np.ascontiguousarray(array).data)
    sizes = f"{len(dataset.train)} training and {len(dataset.test)} test images"
    return f"{dataset.name}: {sizes}, SHA-256 {whole.hexdigest()}"


def _default_path(name: str) -> Path:
    """The first free runs/<name>-<n>, where `name` may be anything a bundle is called."""
    safe = re.sub(r"[^\w.-]+", "-", name).strip(".-") or "run"
    number = 1
    while (path := Path("runs", f"{safe}-{number}")).exists():
        number += 1
    return path


def _digest(record: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()


def _unwritable(folder: Path, error: OSError) -> RunError:
    return RunError(f"the run can't be written: {error.strerror or error}.", where=str(folder))
