"""What a package exports of one kind: each is to have a row in the table of its tests."""

from __future__ import annotations

from types import ModuleType


def exported(package: ModuleType, base: type) -> set[type]:
    """The classes derived from `base` that `package` tells its users of."""
    names = getattr(package, "__all__", None) or [name for name in vars(package) if not name.startswith("_")]
    things = (getattr(package, name) for name in names)
    return {x for x in things if isinstance(x, type) and issubclass(x, base) and x is not base}
