"""From JSON to typed data: dataclasses are checked field by field, as their annotations say."""

from __future__ import annotations

from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints


def decode(kind: Any, value: Any, where: str) -> Any:
    """`value` from JSON as the type `kind`: dataclasses, tuples, dicts, literals and scalars.

    Raises ValueError where they do not fit, with `where` in the document the value stands.
    """
    origin, arguments = get_origin(kind), get_args(kind)
    if kind is Any:
        return value
    if origin is Literal:
        if value in arguments:
            return value
    elif origin in (Union, UnionType):
        for option in arguments:
            try:
                return decode(option, value, where)
            except ValueError:
                continue
    elif origin is tuple:
        if isinstance(value, list):
            return tuple(decode(arguments[0], item, f"{where}[{i}]") for i, item in enumerate(value))
    elif origin is dict:
        if isinstance(value, dict):
            return {key: decode(arguments[1], item, f"{where}.{key}") for key, item in value.items()}
    elif hasattr(kind, "__dataclass_fields__"):
        if isinstance(value, dict):
            hints = get_type_hints(kind)
            if unknown := value.keys() - hints.keys():
                raise ValueError(f"{where} has unknown fields {sorted(unknown)}")
            try:
                return kind(
                    **{key: decode(hints[key], item, f"{where}.{key}") for key, item in value.items()}
                )
            except TypeError as error:
                raise ValueError(f"{where} is incomplete: {error}") from error
    elif kind is float:
        if isinstance(value, int | float) and not isinstance(value, bool):
            return float(value)
    elif isinstance(value, kind) and not (kind is int and isinstance(value, bool)):
        return value
    raise ValueError(f"{where} is {value!r}, which is not {getattr(kind, '__name__', kind)}")
