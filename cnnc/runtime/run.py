"""A run directory: everything one training run used and made.

::

    RUN/bundle/             a copy of the bundle it trains
    RUN/tuned/              the tuned step it trains on, where it trains on one
    RUN/settings.toml       the settings, and digests of the data and of the bundle's manifest
    RUN/metrics.csv         one row an epoch; times.csv has what a clock decides
    RUN/confusion_matrix.csv   that of the last evaluation, where the bundle counts one (of several outputs
                            OUTPUT_confusion_matrix.csv)
    RUN/last.safetensors    where --resume goes on (and last.previous.safetensors)
    RUN/best.safetensors    the state with the best metric
    RUN/summary.json        written at the end
    RUN/environment.json    versions, machine, provider and threads of each process that trained it
    RUN/lock                locked by the process that trains
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cnnc.bundle import (
    MANIFEST,
    RUN_BUNDLE,
    RUN_SETTINGS,
    STATE,
    Array,
    Bundle,
    Manifest,
    behind_link,
    file_hash,
)
from cnnc.data.class_names import named
from cnnc.errors import BundleError, CnncError, RunError, os_errors_as
from cnnc.runtime import history
from cnnc.runtime.checkpoint import LAST, Checkpoint, Progress, save
from cnnc.runtime.disk import check_room, room_for_run
from cnnc.runtime.drafts import draft, remove_abandoned
from cnnc.runtime.environment import record_environment
from cnnc.runtime.files import TEMPORARY, file_name, flush_folder, write_whole
from cnnc.runtime.history import METRICS
from cnnc.runtime.matrices import Matrix, write_matrices
from cnnc.runtime.reporter import Start
from cnnc.runtime.settings import Settings
from cnnc.runtime.settings_file import RUN, decode_toml, encode_toml
from cnnc.runtime.tuned import FOLDER, TunedStep, keep

BUNDLE, SETTINGS, SUMMARY, LOCK = RUN_BUNDLE, RUN_SETTINGS, "summary.json", "lock"
_FORMAT, _VERSION = "cnnc-run", 2
_RESTORE = "Restore the run from a copy, or train anew."
_TITLE = "# Another run with these settings: cnnc train --config settings.toml\n"
_SEAL = "# SHA-256 of the above: "


@dataclass(frozen=True)
class Run:
    """A run directory whose settings and bundle were whole and unaltered when it was opened.

    `data` is the `fingerprint` of the data set the run began with.
    """

    path: Path
    bundle: Bundle
    settings: Settings
    data: Mapping[str, Any]

    @property
    def manifest(self) -> Manifest:
        """The bundle's, with the class names of the run's data where the network has none of its own."""
        return named(self.bundle.manifest, self.data["classes"])

    @classmethod
    def create(
        cls,
        path: str | os.PathLike[str] | None,
        bundle: Bundle,
        settings: Settings,
        data: Mapping[str, Any],
        state: Mapping[str, Array],
        columns: Sequence[str],
        tuned: TunedStep | None = None,
    ) -> Run:
        """Make a new run that starts from `state`, whole or not at all; None means runs/<bundle>-<n>.

        `columns` are those of metrics.csv, `tuned` is the step it trains on, if not train.onnx. Raises
        RunError where `path` holds a run or anything else, or can't be written.
        """
        place = _default_path(bundle.manifest.name) if path is None else Path(path)
        check_free(place)
        folder = behind_link(place)
        remove_abandoned(folder)
        check_room(folder, room_for_run(bundle, settings.on_nan == "rollback"))
        header = history.header(columns)
        with os_errors_as(
            RunError, "the run can't be written", where=folder, hint="Choose another folder with -o."
        ):
            folder.parent.mkdir(parents=True, exist_ok=True)
            with draft(folder) as temporary:
                (temporary / BUNDLE).mkdir()
                for name in (*bundle.manifest.graphs, STATE, MANIFEST):
                    shutil.copyfile(bundle.path / name, temporary / BUNDLE / name)
                made = cls(temporary, Bundle.open(temporary / BUNDLE), settings, data)
                made._write_settings()
                keep(tuned, temporary)
                write_whole(temporary / METRICS, header)
                save(temporary / LAST, Checkpoint(state, Progress(history=history.digest(header))))
                (temporary / LOCK).touch()
                temporary.rename(folder)
            flush_folder(folder.parent)
        return cls(place, Bundle(place / BUNDLE, made.bundle.manifest), settings, data)

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Run:
        """Open an existing run. Raises RunError where a file is missing, truncated or altered."""
        folder = Path(path)
        if not folder.is_dir():
            raise RunError("there is no such run.", where=str(folder), hint="Start one with `cnnc train`.")
        where = folder / SETTINGS
        try:
            record = _unsealed(where.read_bytes())
            run = record.pop(RUN)
            if (run["format"], run["version"]) != (_FORMAT, _VERSION):
                raise ValueError(f"it is not of {_FORMAT} version {_VERSION}")
            settings = Settings(**{"tune": (folder / FOLDER).exists(), **record})  # older runs don't say
            bundle = Bundle.open(folder / BUNDLE)
            if file_hash(bundle.path / MANIFEST) != run["manifest"]:
                raise BundleError("this file is altered.", where=str(bundle.path / MANIFEST))
            return cls(folder, bundle, settings, run["data"])
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
        with self._writing():
            run._write_settings()
        return run

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the run for this process. Raises RunError where another process trains it."""
        with self._writing():
            file = (self.path / LOCK).open("a")
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
        with self._writing():
            write_whole(self.path / SUMMARY, (json.dumps(record, indent=1) + "\n").encode())

    def write_environment(self, start: Start) -> None:
        """Add this process to environment.json. Raises RunError."""
        with self._writing():
            record_environment(self.path, start)

    def write_matrices(self, matrices: Sequence[Matrix]) -> None:
        """Write the confusion matrices of the last evaluation. Raises RunError."""
        with self._writing():
            write_matrices(self.path, matrices)

    def _writing(self) -> AbstractContextManager[None]:
        return os_errors_as(RunError, "the run can't be written", where=self.path)

    def _write_settings(self) -> None:
        own = {
            "format": _FORMAT,
            "version": _VERSION,
            "manifest": file_hash(self.bundle.path / MANIFEST),
            "data": self.data,
        }
        text = _TITLE + encode_toml({**vars(self.settings), RUN: own})
        write_whole(self.path / SETTINGS, _sealed(text.encode("utf-8", "surrogateescape")))


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


def _default_path(name: str) -> Path:
    """The first free runs/<name>-<n>, where `name` may be anything a bundle is called."""
    number = 1
    while (path := Path("runs", f"{file_name(name, 'run')}-{number}")).exists():
        number += 1
    return path


def _sealed(text: bytes) -> bytes:
    """The text with a last line by which a change is found."""
    return text + f"{_SEAL}{hashlib.sha256(text).hexdigest()}\n".encode()


def _unsealed(data: bytes) -> dict[str, Any]:
    """The record of a settings file. Raises ValueError where it is not as it was written."""
    text, seal, _ = data.rpartition(_SEAL.encode())
    if not seal or _sealed(text) != data:
        raise ValueError("it is not as it was written: its SHA-256 is another")
    return decode_toml(text)
