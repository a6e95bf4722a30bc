"""Augmentations as the command line names them: ``flip``, ``crop:4``, ``jitter:0.2,contrast=0.4``."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from cnnc import augment
from cnnc.augment.augmentation import Augmentation
from cnnc.errors import GraphFileError, UsageError, did_you_mean

NAMED: dict[str, type[Augmentation]] = {
    kind.kind: kind
    for kind in (getattr(augment, name) for name in augment.__all__)
    if kind not in (Augmentation, augment.RandomChoice)
}


def parse(text: str) -> Augmentation:
    """An augmentation from ``KIND`` or ``KIND:SETTING,…``, a setting being a value or ``NAME=VALUE``.

    Values without a name are those of the fields in their order; a range is ``LOW/HIGH``. Raises UsageError.
    """
    kind, _, settings = text.partition(":")
    if kind not in NAMED:
        raise UsageError(f"--augment '{kind}' is unknown.", hint=did_you_mean(kind, NAMED))
    names = [field.name for field in fields(NAMED[kind])]
    given: dict[str, Any] = {}
    for i, setting in enumerate(settings.split(",") if settings else ()):
        name, equals, value = setting.partition("=")
        if not equals:
            name, value = names[i] if i < len(names) else f"{i + 1}", name
        if name not in names or name in given:
            what = f"has no setting '{name}'" if name not in names else f"has '{name}' twice"
            raise UsageError(f"--augment {text}: {kind} {what}.", hint=did_you_mean(name, names))
        given[name] = _value(value)
    try:
        return NAMED[kind](**given)
    except GraphFileError as error:
        raise UsageError(f"--augment {text}: {error.what}", hint=error.hint) from error


def _value(text: str) -> Any:
    """A number, a range of two, or a word."""
    if "/" in text:
        return tuple(_value(part) for part in text.split("/"))
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
