"""A bundle on disk: opened where every file is whole, written whole or not at all."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from cnnc.bundle.manifest import Manifest
from cnnc.bundle.names import GRAPHS, JOIN, LANE, MANIFEST, RUN_BUNDLE, RUN_SETTINGS, STATE
from cnnc.bundle.state import Array, encode_state, read_state, state_mismatch
from cnnc.errors import BundleError, os_errors_as

_REBUILD = "Build the bundle again with `cnnc build`, or restore it from a copy."


@dataclass(frozen=True)
class Bundle:
    """A bundle on disk whose files were whole and unaltered when it was opened."""

    path: Path
    manifest: Manifest

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Bundle:
        """Read the manifest at `path` and check the hash of every file. Raises BundleError."""
        folder = Path(path)
        if not folder.is_dir():
            raise BundleError(
                "there is no such bundle.", where=str(folder), hint="Write one with `cnnc build`."
            )
        manifest_path = folder / MANIFEST
        try:
            manifest = Manifest.from_json(manifest_path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise BundleError(
                f"this folder is no bundle: it has no {MANIFEST}.",
                where=str(folder),
                hint="Write one with `cnnc build`.",
            ) from None
        except (OSError, ValueError, RecursionError) as error:
            raise BundleError(
                f"the manifest can't be read: {error}.", where=str(manifest_path), hint=_REBUILD
            ) from error
        for name in (*manifest.graphs, STATE):
            expected = manifest.files.get(name)
            try:
                actual = file_hash(folder / name)
            except FileNotFoundError:
                raise BundleError(
                    "this file of the bundle is missing.", where=str(folder / name), hint=_REBUILD
                ) from None
            except OSError as error:
                raise BundleError(f"this file can't be read: {error}.", where=str(folder / name)) from error
            if actual != expected:
                raise BundleError(
                    "this file is truncated or altered: its SHA-256 is not the manifest's.",
                    where=str(folder / name),
                    hint=_REBUILD,
                )
        return cls(folder, manifest)

    def graph(self, name: str) -> Path:
        """The path of one of the graphs, such as ``train.onnx``."""
        return self.path / name

    def initial_state(self) -> dict[str, Array]:
        """The initial state, checked against the manifest. Raises BundleError."""
        path = self.path / STATE
        try:
            state, _ = read_state(path)
        except (OSError, ValueError) as error:
            raise BundleError(f"the state can't be read: {error}.", where=str(path), hint=_REBUILD) from error
        if problem := state_mismatch(self.manifest, state):
            raise BundleError(problem, where=str(path), hint=_REBUILD)
        return state


def write_bundle(
    path: str | os.PathLike[str],
    manifest: Manifest,
    graphs: Mapping[str, bytes],
    state: Mapping[str, Array],
) -> Bundle:
    """Write a bundle to a new folder `path`, whole or not at all. Raises BundleError.

    An existing empty folder, or an existing bundle, is replaced, in its place where `path` is a link to it;
    anything else, the bundle of a run among it, is left as it is.
    """
    files = {**graphs, STATE: encode_state(state)}
    hashes = {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
    manifest = replace(manifest, files=hashes)
    files[MANIFEST] = manifest.to_json().encode()
    check_replaceable(Path(path))
    folder = behind_link(path)
    with os_errors_as(
        BundleError, "the bundle can't be written", where=folder, hint="Choose another folder with -o."
    ):
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
        try:
            for name, data in files.items():
                (temporary / name).write_bytes(data)
            temporary.chmod(0o777 & ~_umask())
            if folder.exists():
                shutil.rmtree(folder)
            temporary.rename(folder)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
    return Bundle(Path(path), manifest)


def behind_link(path: str | os.PathLike[str]) -> Path:
    """The folder that `path` is a link to, or `path` itself: a folder can take the place of no link."""
    return Path(os.path.realpath(path)) if os.path.islink(path) else Path(path)


def check_replaceable(folder: Path) -> None:
    """Raise BundleError unless `folder` is absent, empty, or an earlier bundle of no run and nothing else."""
    if not folder.exists() and not folder.is_symlink():
        return
    if not folder.is_dir():
        raise BundleError(
            "a file of this name exists.", where=str(folder), hint="Choose another name with -o."
        )
    real = Path(os.path.realpath(folder))
    if real.name == RUN_BUNDLE and (real.parent / RUN_SETTINGS).exists():
        raise BundleError(
            "this is the bundle that a run trains.", where=str(folder), hint="Choose another folder with -o."
        )
    names = {entry.name for entry in folder.iterdir()}
    if names and not (MANIFEST in names and names <= {*GRAPHS, LANE, JOIN, STATE, MANIFEST}):
        raise BundleError(
            "this folder exists and holds something else than a bundle.",
            where=str(folder),
            hint="Choose another folder with -o, or empty this one.",
        )


def file_hash(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
