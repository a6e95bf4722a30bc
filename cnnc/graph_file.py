"""Graph files: the user's Python that says what to build. The only place that executes it."""

from __future__ import annotations

import inspect
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any, get_type_hints

from cnnc.checks import kind_of
from cnnc.errors import GraphFileError, did_you_mean
from cnnc.program import Program
from cnnc.users_code import users_code

_WORDS = {
    "true": True,
    "yes": True,
    "on": True,
    "1": True,
    "false": False,
    "no": False,
    "off": False,
    "0": False,
}


def known_graphs() -> list[str]:
    """The names of the graphs that come with cnnc."""
    return sorted(_shipped())


def load_program(source: str | os.PathLike[str], options: Mapping[str, str] | None = None) -> Program:
    """Execute a graph file and return its program.

    `source` is the path of a ``.py`` file or one of `known_graphs`. The file has a `program`: a Program, or a
    function that returns one and whose parameters, all with a default of the type int, float, bool or str,
    are the options that `options` sets; one that is said to be a float takes any number, whatever its
    default. Raises GraphFileError.
    """
    path = _find(source)
    with _importable(path.parent):
        return _program(path, _execute(path), options or {})


def _program(path: Path, module: ModuleType, options: Mapping[str, str]) -> Program:
    made = getattr(module, "program", None)
    if made is None:
        raise GraphFileError(
            "this graph file has no `program`.",
            where=str(path),
            hint="End it with `program = Program(…)` or `def program(): return Program(…)`.",
        )
    verb = "is"
    if inspect.isfunction(made):
        verb = "returned"
        arguments = _arguments(made, options, path)
        with users_code("`program`", path.name):
            made = made(**arguments)
        if inspect.iscoroutine(made):
            made.close()
    elif options:
        raise GraphFileError(
            f"there is no option '{next(iter(options))}': this graph file has none.",
            where=str(path),
            hint="To give it options, make `program` a function with keyword parameters.",
        )
    if not isinstance(made, Program):
        raise GraphFileError(
            f"`program` {verb} {kind_of(made)}, not a Program.",
            where=str(path),
            hint="Write `program = Program(…)`, or a function that returns one.",
        )
    return made


def _shipped() -> dict[str, Path]:
    spec = find_spec("cnnc.graphs")
    folders = spec.submodule_search_locations if spec is not None else None
    files = (file for folder in folders or () for file in Path(folder).glob("*.py"))
    return {file.stem: file for file in files if not file.stem.startswith("_")}


def _find(source: str | os.PathLike[str]) -> Path:
    shipped = _shipped()
    if isinstance(source, str) and source in shipped:
        return shipped[source]
    path = Path(source)
    if path.suffix == ".py" and os.path.isfile(path):
        return path
    if os.path.isdir(path):
        what = "this is a folder, not a graph file."
    elif os.path.exists(path):
        what = "this is no graph file: its name does not end in .py."
    else:
        what = "there is no such graph file."
    neighbours = (str(path.parent / file.name) for file in path.parent.glob("*.py") if file.is_file())
    raise GraphFileError(what, where=str(source), hint=did_you_mean(str(source), shipped, neighbours))


def _execute(path: Path) -> ModuleType:
    """Run the file as a module of its own."""
    try:
        text = path.read_bytes()
    except OSError as error:
        raise GraphFileError(f"this file can't be read: {error.strerror}.", where=str(path)) from error
    try:
        code = compile(text, str(path), "exec", dont_inherit=True)
    except SyntaxError as error:
        raise GraphFileError(
            f"this is not Python: {error.msg}.", where=f"{path.name}:{error.lineno or 1}"
        ) from error
    except (ValueError, RecursionError, MemoryError) as error:
        raise GraphFileError(f"this is not Python: {error}.", where=path.name) from error
    package = "cnnc.graphs." if path in _shipped().values() else "graph_file_"
    module = ModuleType(package + path.stem)
    module.__file__ = str(path)
    sys.modules[module.__name__] = module
    with users_code("the graph file", path.name):
        exec(code, module.__dict__)
    return module


@contextmanager
def _importable(folder: Path) -> Iterator[None]:
    """Within it, the user's code can import the files of `folder`."""
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        with suppress(ValueError):  # where the user's code itself took it away
            sys.path.remove(str(folder))


def _arguments(function: Callable[..., Any], options: Mapping[str, str], path: Path) -> dict[str, Any]:
    """The options as the types of the defaults that they replace."""
    where = f"{path.name}:{function.__code__.co_firstlineno}"
    defaults, annotated = {}, _annotations(function)
    for name, parameter in inspect.signature(function).parameters.items():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            continue
        if type(parameter.default) not in (bool, int, float, str):
            raise GraphFileError(
                f"option '{name}' of `program` has no default that is an int, float, bool or str.",
                where=where,
                hint=f"Write one, such as `{name}: int = 16`: it gives the option's type.",
            )
        default = parameter.default
        defaults[name] = float(default) if annotated.get(name) is float and type(default) is int else default
    arguments = {}
    for name, text in options.items():
        if name not in defaults:
            known = did_you_mean(name, defaults) or "This graph file has no options."
            raise GraphFileError(f"there is no option '{name}'.", where=where, hint=known)
        arguments[name] = _converted(name, text, defaults[name], where)
    return arguments


def _annotations(function: Callable[..., Any]) -> dict[str, Any]:
    """The types of the function's parameters; none where the file says what nothing defines."""
    try:
        return get_type_hints(function)
    except (NameError, TypeError, AttributeError):
        return {}


def _converted(name: str, text: str, default: Any, where: str) -> Any:
    kind = type(default)
    try:
        return _WORDS[text.lower()] if kind is bool else kind(text)
    except (KeyError, ValueError):
        wanted = {bool: "true or false", int: "an integer", float: "a number"}[kind]
        raise GraphFileError(
            f"option '{name}' must be {wanted}, not '{text if len(text) < 40 else text[:40] + '…'}'.",
            where=where,
            hint=f"Its default is {str(default).lower() if kind is bool else default}.",
        ) from None
