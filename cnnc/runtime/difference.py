"""How two bundles differ: what keeps a run from going on with another graph than it began with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import Any

from cnnc.bundle import Manifest

SHOWN = 6
_NO_MATTER = {"name", "producer", "seed", "files", "functions", "format", "version", "state"}


def bundle_difference(before: Manifest, now: Manifest) -> str:
    """How `now` differs from what a run began with, in half a sentence; empty where it does not."""
    said = [
        f"{entry.name.replace('_', ' ')} {_words(getattr(before, entry.name), getattr(now, entry.name))}"
        for entry in fields(Manifest)
        if entry.name not in _NO_MATTER and getattr(before, entry.name) != getattr(now, entry.name)
    ]
    said += _of_state(before, now)
    if not said and before.files.get("train.onnx") != now.files.get("train.onnx"):
        said = ["another train.onnx, though its names and shapes agree"]
        if before.producer != now.producer:
            said[0] += f", by {now.producer} in place of {before.producer}"
    more = f"; and {len(said) - SHOWN} more" if len(said) > SHOWN else ""
    return "; ".join(said[:SHOWN]) + more


def _of_state(before: Manifest, now: Manifest) -> list[str]:
    ours, theirs = ({entry.name: entry for entry in manifest.state} for manifest in (before, now))
    said = [f"state '{name}' gone" for name in ours if name not in theirs]
    said += [f"state '{name}' new" for name in theirs if name not in ours]
    for name in ours.keys() & theirs.keys():
        if ours[name].shape != theirs[name].shape or ours[name].dtype != theirs[name].dtype:
            said.append(f"state '{name}' {list(ours[name].shape)} then, {list(theirs[name].shape)} now")
        elif ours[name].trainable != theirs[name].trainable:
            said.append(f"'{name}' {'frozen' if ours[name].trainable else 'trained'} now")
    return sorted(said)


def _words(before: Any, now: Any) -> str:
    """Both values, or of records and mappings the parts that differ."""
    if is_dataclass(before) and is_dataclass(now):
        before, now = vars(before), vars(now)
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        names = [name for name in {**before, **now} if before.get(name) != now.get(name)]
        names = ["name"] if "name" in names else names  # of another optimizer everything else is others
        before, now = ({name: side.get(name) for name in names} for side in (before, now))
        return ", ".join(f"{name} {before[name]} then, {now[name]} now" for name in names)
    if isinstance(before, Sequence) and not isinstance(before, str):
        return f"{_list(before)} then, {_list(now)} now"
    return f"{before} then, {now} now"


def _list(values: Sequence[Any]) -> str:
    names = [str(getattr(value, "name", value)) for value in values]
    return f"[{', '.join(names[:10])}{', …' if len(names) > 10 else ''}]"
