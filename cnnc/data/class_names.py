"""The names of classes: a network's own, those its data gave it, and whether other data agree with them.

A name that is no more than the class's number says nothing: where one side has only such names, or none,
any names will do.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from cnnc.bundle import HeadSpec, Manifest
from cnnc.data.dataset import LABELS, numerals
from cnnc.errors import DataError


def named(manifest: Manifest, classes: Sequence[str]) -> Manifest:
    """The manifest of a network whose labels mean `classes`: outputs without names of their own have these.

    That is for outputs that are compared with the labels as classes. Where one has more outputs than there
    are `classes`, the others are called by their numbers; it stays nameless where it has fewer, or where such
    a number is a name already.
    """
    first, *further = [_named(head, tuple(classes)) for head in manifest.heads]
    return replace(manifest, classes=first.classes, further=tuple(further))


def label_names(heads: Iterable[HeadSpec]) -> tuple[str, ...]:
    """What the labels of data mean to a network with these outputs; empty where none of them says it."""
    return next((head.classes for head in heads if head.classes and _tells_labels(head)), ())


def class_count(head: HeadSpec) -> int | None:
    """The number of an output's classes; None where it is open."""
    size = head.output.shape[min(1, len(head.output.shape) - 1)]
    return size if isinstance(size, int) else len(head.classes) or None


def check_names(data: tuple[str, ...], network: tuple[str, ...], where: str) -> None:
    """Raise DataError unless the class names agree, or one side has none or only numbers them."""
    if any(names == numerals(len(names)) for names in (data, network)):
        return
    pairs = [_padded(names, max(len(data), len(network))) for names in (data, network)]
    index = next((i for i, (ours, theirs) in enumerate(zip(*pairs, strict=True)) if ours != theirs), None)
    if index is None:
        return
    if index < min(len(data), len(network)):
        differ = f"class {index} is '{data[index]}' in the data and '{network[index]}' in the network"
    else:
        differ = f"the data has {len(data)} classes, the network {len(network)}"
    raise DataError(
        f"{differ}.",
        where=where,
        hint="Name and order the classes alike, or build the network for this data.",
    )


def _named(head: HeadSpec, classes: tuple[str, ...]) -> HeadSpec:
    count = class_count(head)
    if not classes or head.classes or count is None or not _tells_labels(head) or len(classes) > count:
        return head
    names = _padded(classes, count)
    return replace(head, classes=names) if len(set(names)) == count else head


def _tells_labels(head: HeadSpec) -> bool:
    """Whether what an output chooses is what the labels of data say."""
    return head.target.kind == "class" and head.target.array == LABELS


def _padded(names: tuple[str, ...], count: int) -> tuple[str, ...]:
    """`count` names, of which the last are numbers."""
    return names + numerals(count)[len(names) :]
