"""What users import: a package tells all of it in ``__all__``, and every name says what it is."""

from __future__ import annotations

import ast
import importlib
import inspect
import pkgutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import cnnc
from cnnc import errors, program, schedules

PACKAGES = ["cnnc", *(m.name for m in pkgutil.walk_packages(cnnc.__path__, "cnnc.") if m.ispkg)]
LATE = {"cnnc", "cnnc.cli", "cnnc.graphs", "cnnc.ort_training"}
"""Packages that load what they export when it is first used, or export nothing."""


def exported() -> Iterator[tuple[str, Any]]:
    """The public classes and functions of packages, and of the modules that users import from."""
    for package in PACKAGES:
        module = importlib.import_module(package)
        for name in getattr(module, "__all__", ()):
            yield f"{package}.{name}", getattr(module, name)
    for module in (errors, program, schedules):
        for name, thing in vars(module).items():
            if getattr(thing, "__module__", "") == module.__name__ and not name.startswith("_"):
                yield f"{module.__name__}.{name}", thing


def undocumented(name: str, thing: Any) -> Iterator[str]:
    """A class or function without a docstring of its own, and methods that have none at all."""
    if not inspect.isclass(thing) and not inspect.isfunction(thing):
        return
    own = thing.__doc__ or ""
    if not own or own.startswith(f"{thing.__name__}("):  # which a dataclass makes up
        yield name
    for method, value in vars(thing).items() if inspect.isclass(thing) else ():
        called = inspect.isfunction(getattr(value, "__func__", value)) or isinstance(value, property)
        if called and not method.startswith("_") and not inspect.getdoc(getattr(thing, method)):
            yield f"{name}.{method}"


def test_every_public_name_is_documented() -> None:
    found = dict(exported())
    assert len(found) > 200
    assert [where for name, thing in found.items() for where in undocumented(name, thing)] == []


class Bare:
    """It has one."""

    def method(self) -> None: ...

    def inherits(self) -> None:
        """So does this."""

    @property
    def size(self) -> int:
        return 0


class Inherits(Bare):
    def inherits(self) -> None: ...


def test_undocumented_names_are_seen() -> None:
    assert list(undocumented("Bare", Bare)) == ["Bare.method", "Bare.size"]
    assert list(undocumented("Inherits", Inherits)) == ["Inherits"]


def test_every_module_says_what_it_is() -> None:
    root = Path(cnnc.__file__).parent
    silent = [
        file for file in root.rglob("*.py") if not ast.get_docstring(ast.parse(file.read_text("utf-8")))
    ]
    assert silent == []


@pytest.mark.parametrize("package", sorted(set(PACKAGES) - LATE))
def test_a_package_exports_what_it_imports(package: str) -> None:
    module = importlib.import_module(package)
    public = {n for n, x in vars(module).items() if not n.startswith("_") and not inspect.ismodule(x)}
    assert public - {"annotations"} <= set(getattr(module, "__all__", ()))
