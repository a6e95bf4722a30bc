"""Tuned steps: training steps that a tuner chose for one machine and one batch size, and where they are kept.

A tuned step computes what train.onnx does, for batches of exactly `batch` examples; any other batch takes
train.onnx. It is data, ONNX files and a record: the runtime executes it, and never imports what made it.

::

    CACHE/<key>/step.onnx      the step as one graph
    CACHE/<key>/lane.onnx      where that is faster still: forward and backward for one of several equal parts
    CACHE/<key>/join.onnx      of the batch, which run side by side, and what joins them: the mean, the update
    CACHE/<key>/record.json    what it is, how fast it was, and the SHA-256 of each file and of the rest of it

The key is a digest of everything that the choice depends on. What is corrupt, foreign or of another version
counts as absent, and is written anew.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shutil
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import onnxruntime as ort

from cnnc import __version__
from cnnc.bundle import JOIN, LANE, Bundle, file_hash, seal
from cnnc.errors import RunError
from cnnc.runtime.files import write_whole

STEP, RECORD = "step.onnx", "record.json"
FOLDER = "tuned"
"""In a run: the tuned step it trains on."""
_FORMAT, _VERSION = "cnnc-tuned-step", 3
_TURNS = 8
"""How often a process tries to put its own step where others put theirs at the same time."""
REVISION = 9
"""Of forms, bodies and passes: another one makes every tuned step be chosen anew."""


@dataclass(frozen=True)
class Conditions:
    """What a tuned step was chosen for.

    `graph` is the SHA-256 of train.onnx, `exact` whether only forms were allowed that differ from the
    portable step by the order of sums alone.
    """

    graph: str
    batch: int
    threads: int
    exact: bool
    provider: str
    runtime: str
    processor: str
    compiler: str

    @classmethod
    def of(cls, bundle: Bundle, batch: int, threads: int, exact: bool = False) -> Conditions:
        """The conditions here and now, on the CPU."""
        return cls(
            bundle.manifest.files["train.onnx"],
            batch,
            threads,
            exact,
            "CPUExecutionProvider",
            ort.__version__,
            processor(),
            f"{__version__}/{REVISION}",
        )

    @property
    def key(self) -> str:
        """A name for them: a digest."""
        return seal(asdict(self))[:32]


@dataclass(frozen=True)
class TunedStep:
    """A tuned step on disk, whole and unaltered when it was read.

    `plan` maps nodes to forms and `choices` gradient ops to bodies, where they are not the portable ones;
    `options` are ONNX Runtime's session settings. The one graph goes through its batch in `chunks`; where
    there are `lanes`, more than 1, each goes through its part in `lane_chunks`. Times are medians in
    milliseconds. `dropped` says what was tried and failed to load or to compute the same.
    """

    path: Path
    conditions: Conditions
    plan: Mapping[str, str]
    choices: Mapping[str, str]
    options: Mapping[str, str]
    chunks: int
    portable_ms: float
    step_ms: float
    seconds: float
    tried: int
    lanes: int = 1
    lane_chunks: int = 1
    dropped: tuple[str, ...] = ()
    sha256: Mapping[str, str] = field(default_factory=dict, repr=False)

    @property
    def speedup(self) -> float:
        """How many times as fast as the portable step."""
        return self.portable_ms / self.step_ms

    @property
    def names(self) -> tuple[str, ...]:
        """The names of its graphs' files."""
        return (STEP, LANE, JOIN) if self.lanes > 1 else (STEP,)

    @classmethod
    def read(cls, folder: Path) -> TunedStep | None:
        """The tuned step in `folder`; None where there is none, or none that is whole."""
        try:
            record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
            digest = record.pop("digest")
            if digest != seal(record) or (record.pop("format"), record.pop("version")) != (
                _FORMAT,
                _VERSION,
            ):
                return None
            conditions = Conditions(**record.pop("conditions"))
            dropped = tuple(record.pop("dropped"))
            found = cls(folder / STEP, conditions, **record, dropped=dropped)
            whole = {name: file_hash(folder / name) for name in found.names} == found.sha256
            return found if whole else None
        except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
            return None

    def write(self, folder: Path, *graphs: bytes, replace: bool = False) -> TunedStep:
        """Write the graphs, in the order of `names`, and this record to `folder`, whole or not at all.

        One that is there already stays, unless it is damaged or `replace` is set.
        Returns what is there then: of two processes that write at once, one's. Raises OSError.
        """
        record = {"format": _FORMAT, "version": _VERSION, **asdict(self)}
        files = dict(zip(self.names, graphs, strict=True))
        record |= {"sha256": {name: hashlib.sha256(graph).hexdigest() for name, graph in files.items()}}
        del record["path"]
        record["digest"] = seal(record)
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
        try:
            for name, graph in files.items():
                write_whole(temporary / name, graph)
            write_whole(temporary / RECORD, (json.dumps(record, indent=1) + "\n").encode())
            temporary.chmod(0o755)
            for _ in range(_TURNS):
                if folder.exists() and (replace or TunedStep.read(folder) is None):
                    _put_away(folder)
                with suppress(OSError):  # another process was faster
                    temporary.rename(folder)
                    replace = False
                if not replace and (found := TunedStep.read(folder)) is not None:
                    return found
                time.sleep(0.01)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        raise OSError(f"{folder} can't be written")

    def summary(self) -> dict[str, Any]:
        """The record as one JSON object."""
        return {**asdict(self), "path": str(self.path), "speedup": self.speedup}


def _put_away(folder: Path) -> None:
    """Remove a folder, which others never see half empty; they may remove it at the same moment."""
    old = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    with suppress(FileNotFoundError):
        folder.rename(old / folder.name)
    shutil.rmtree(old, ignore_errors=True)


def cached(conditions: Conditions) -> TunedStep | None:
    """The tuned step that the cache holds for these conditions, if any."""
    found = TunedStep.read(cache_folder() / conditions.key)
    return found if found is not None and found.conditions == conditions else None


def keep(tuned: TunedStep | None, run: Path) -> None:
    """Copy a tuned step into a new run, so that it goes on with the same one. Raises OSError."""
    if tuned is not None:
        (run / FOLDER).mkdir()
        for name in (*tuned.names, RECORD):
            shutil.copyfile(tuned.path.parent / name, run / FOLDER / name)
        copy = TunedStep.read(run / FOLDER)
        if copy is None or copy.sha256 != tuned.sha256:
            raise OSError(f"{tuned.path.parent} was written anew at the same moment")


def kept(run: Path) -> TunedStep | None:
    """The tuned step that a run began with; None where it began without. Raises RunError."""
    if not (run / FOLDER).exists():
        return None
    found = TunedStep.read(run / FOLDER)
    if found is None:
        raise RunError(
            "the tuned step of this run is truncated or altered, or of another version of cnnc.",
            where=str(run / FOLDER),
            hint="Restore it from a copy, or remove the folder to go on with the portable step (other bits).",
        )
    return found


def fits(tuned: TunedStep) -> bool:
    """Whether a tuned step was chosen on a machine and a runtime like these, where it was checked."""
    here = (ort.__version__, processor())
    return (tuned.conditions.runtime, tuned.conditions.processor) == here


def cache_folder() -> Path:
    """``$CNNC_CACHE/tuned``, or that of the user's cache."""
    root = os.environ.get("CNNC_CACHE") or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "cnnc")
    return Path(root, "tuned").expanduser()


@cache
def processor() -> str:
    """The processor's model, by which a choice is kept."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        facts = dict(line.split(":", 1) for line in lines[:40] if ":" in line)
        named = {key.strip(): value.strip() for key, value in facts.items()}
        model = [named[key] for key in _MODEL if key in named]
        flags = named.get("flags") or named.get("Features") or ""
    except OSError:
        model, flags = [platform.processor()], ""
    digest = hashlib.sha256(flags.encode()).hexdigest()[:8]  # a virtual machine may hide some of the model's
    return " ".join([platform.machine(), *model, digest])


_MODEL = (
    *("model name", "cpu family", "model", "stepping"),
    *("CPU implementer", "CPU architecture", "CPU variant", "CPU part", "CPU revision"),
)
