"""Whether what a manifest says can be: values that its types allow and no bundle has."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from cnnc.bundle.specs import HeadSpec, Preprocessing

if TYPE_CHECKING:
    from cnnc.bundle.manifest import Manifest


def contradiction(manifest: Manifest) -> str:
    """What can't be, in a clause such as ``there are 3 classes and 10 outputs``; empty where all can."""
    return next(_contradictions(manifest), "")


def _contradictions(manifest: Manifest) -> Iterator[str]:
    if not 0 <= manifest.learning_rate < math.inf:
        yield f"the learning rate is {manifest.learning_rate:g}"
    if not 0 <= manifest.seed < 2**31:
        yield f"the seed is {manifest.seed}"
    if manifest.average is not None and not 0 <= manifest.average < 1:
        yield f"the decay of the moving average is {manifest.average:g}"
    counts = {"accumulate": manifest.accumulate}
    if (memory := manifest.memory) is not None:
        counts |= {"memory.batch": memory.batch, "memory.chunks": memory.chunks}
    if (machine := manifest.machine) is not None:
        counts |= {"machine.threads": machine.threads, "machine.lanes": machine.lanes}
    yield from (f"{name} is {count}" for name, count in counts.items() if count < 1)
    if bad := [name for name, value in manifest.scalars.items() if not math.isfinite(value)]:
        yield f"{bad[0]} is {manifest.scalars[bad[0]]}"
    channels = manifest.input.shape[1] if len(manifest.input.shape) > 1 else None
    yield from _of_preprocessing(manifest.preprocessing, channels)
    for head in manifest.heads:
        yield from _of_head(head)
    yield from _of_names("a metric", [metric.name for metric in manifest.metrics])
    yield from _of_names("a tensor of the state", [entry.name for entry in manifest.state])
    known = {entry.name for entry in manifest.state}
    related = [entry.of for entry in manifest.state if entry.of is not None]
    related += [name for each in manifest.adapters for name in (each.weight, each.left, each.right)]
    yield from (
        f"the state has no '{name}', which something belongs to" for name in related if name not in known
    )


def _of_preprocessing(given: Preprocessing, channels: int | str | None) -> Iterator[str]:
    if not 0 < given.scale < math.inf:
        yield f"the scale of images is {given.scale:g}"
    if not 0 < given.crop <= 1:
        yield f"the crop of images is {given.crop:g}"
    for name, numbers in (("mean", given.mean), ("std", given.std)):
        if numbers and isinstance(channels, int) and len(numbers) != channels:
            yield f"there are {len(numbers)} numbers in {name}, for {channels} channels"
        least = 0 if name == "std" else -math.inf
        yield from (f"there is {number:g} in {name}" for number in numbers if not least < number < math.inf)


def _of_head(head: HeadSpec) -> Iterator[str]:
    outputs = head.output.shape[1] if len(head.output.shape) > 1 else None
    if (
        head.target.kind == "class"
        and head.classes
        and isinstance(outputs, int)
        and len(head.classes) != outputs
    ):
        yield f"there are {len(head.classes)} classes for {outputs} outputs"


def _of_names(what: str, names: Sequence[str]) -> Iterator[str]:
    if twice := [name for name, times in Counter(names).items() if times > 1]:
        yield f"{what} called '{twice[0]}' is there twice"
