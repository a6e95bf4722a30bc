"""What the manifest says about a loss, an optimizer and its schedule."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np


def describe(thing: Any) -> Any:
    """A dataclass as its class's name and its fields, all in JSON's types."""
    if is_dataclass(thing):
        named = {field.name: describe(getattr(thing, field.name)) for field in fields(thing)}
        return {"name": type(thing).__name__, **named}
    if isinstance(thing, tuple | list):
        return [describe(item) for item in thing]
    return thing.item() if isinstance(thing, np.generic) else thing
