"""settings.toml: the settings of a run as a file that people read, and can give back with ``--config``."""

from __future__ import annotations

import json
import os
import tomllib
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from types import UnionType
from typing import Any, Literal, get_args, get_origin, get_type_hints

from cnnc.errors import UsageError, did_you_mean, os_errors_as
from cnnc.runtime.settings import Settings

RUN = "run"
"""The table that is a run's own, and no setting."""


def encode_toml(record: Mapping[str, Any], *tables: str) -> str:
    """A record as TOML, in the table that `tables` name; what is None or an empty table is left out.

    It takes only what settings are made of. Bytes of a path that are no UTF-8 stay the surrogates that Python
    makes of them.
    """
    lines = [f"{_key(name)} = {_value(value)}" for name, value in record.items() if not _left(value)]
    for name, value in record.items():
        if isinstance(value, Mapping) and value:
            inner = (*tables, name)
            lines += ["", f"[{'.'.join(map(_key, inner))}]", encode_toml(value, *inner).rstrip("\n")]
    return "\n".join(lines) + "\n"


def decode_toml(data: bytes) -> dict[str, Any]:
    """Read what `encode_toml` wrote. Raises ValueError."""
    return tomllib.loads(data.decode("utf-8", "surrogateescape"))


def read_config(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The settings in a TOML file, such as the settings.toml of a run. Raises UsageError."""
    where = str(path)
    with os_errors_as(UsageError, "the settings can't be read", where=where):
        data = Path(path).read_bytes()
    try:
        record = decode_toml(data)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"this is no TOML: {error}.", where=where) from error
    record.pop(RUN, None)
    kinds = get_type_hints(Settings)
    for name, value in record.items():
        if name not in kinds:
            known = [entry.name for entry in fields(Settings)]
            raise UsageError(f"there is no setting '{name}'.", where=where, hint=did_you_mean(name, known))
        if not _fits(value, kinds[name]):
            raise UsageError(
                f"the setting '{name}' is {value!r}: it takes {_words(kinds[name])}.", where=where
            )
    return record


def _left(value: Any) -> bool:
    return value is None or isinstance(value, Mapping)


def _key(name: str) -> str:
    bare = name.isascii() and name.replace("_", "").replace("-", "").isalnum()
    return name if bare else _string(name)


def _value(value: Any) -> str:
    if isinstance(value, str):
        return _string(value)
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_value, value))}]"
    return json.dumps(value)  # numbers and booleans are written alike


def _string(text: str) -> str:
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _fits(value: Any, kind: Any) -> bool:
    """Whether a value from TOML is of the type of a setting."""
    if get_origin(kind) is UnionType:
        return any(_fits(value, option) for option in get_args(kind))
    if get_origin(kind) is Literal:
        return value in get_args(kind)
    if isinstance(value, bool):
        return kind is bool
    if kind is float:
        return isinstance(value, int | float)
    if get_origin(kind) is not None:  # the options of a graph file
        return isinstance(value, dict) and all(isinstance(item, str) for item in value.values())
    return isinstance(kind, type) and isinstance(value, kind)


def _words(kind: Any) -> str:
    if get_origin(kind) is UnionType:
        return " or ".join(_words(option) for option in get_args(kind) if option is not type(None))
    if get_origin(kind) is Literal:
        return " or ".join(map(repr, get_args(kind)))
    names = {int: "a whole number", float: "a number", str: "a text in quotes", bool: "true or false"}
    return names.get(kind, "a table of texts")
