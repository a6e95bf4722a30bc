"""Graph files: the user's Python that says what to build. The only place that executes it."""

from __future__ import annotations

import inspect
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

from cnnc.checks import kind_of
from cnnc.errors import GraphFileError, did_you_mean
from cnnc.program import Program
from cnnc.source import raised_line

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
    are the options that `options` sets. Raises GraphFileError.
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
        call = partial(made, **_arguments(made, options, path))
        made = _run(path, call, "`program` raised")
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
    neighbours = [str(path.parent / file.name) for file in path.parent.glob("*.py")]
    raise GraphFileError(
        what, where=str(source), hint=did_you_mean(str(source), [*shipped, *neighbours[:20]])
    )


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
    _run(path, lambda: exec(code, module.__dict__), "the graph file raised")
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


def _run(path: Path, call: Callable[[], Any], what: str) -> Any:
    """Call the user's code; its exceptions become a GraphFileError with its innermost line."""
    try:
        return call()
    except GraphFileError:
        raise
    except (Exception, SystemExit) as error:
        said = f": {error}" if str(error) else ""
        raise GraphFileError(
            f"{what} {type(error).__name__}{said.rstrip('.')}.", where=raised_line(error) or path.name
        ) from error


def _arguments(function: Callable[..., Any], options: Mapping[str, str], path: Path) -> dict[str, Any]:
    """The options as the types of the defaults that they replace."""
    where = f"{path.name}:{function.__code__.co_firstlineno}"
    defaults = {}
    for name, parameter in inspect.signature(function).parameters.items():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            continue
        if type(parameter.default) not in (bool, int, float, str):
            raise GraphFileError(
                f"option '{name}' of `program` has no default that is an int, float, bool or str.",
                where=where,
                hint=f"Write one, such as `{name}: int = 16`: it gives the option's type.",
            )
        defaults[name] = parameter.default
    arguments = {}
    for name, text in options.items():
        if name not in defaults:
            known = did_you_mean(name, defaults) or "This graph file has no options."
            raise GraphFileError(f"there is no option '{name}'.", where=where, hint=known)
        arguments[name] = _converted(name, text, defaults[name], where)
    return arguments


def _converted(name: str, text: str, default: Any, where: str) -> Any:
    kind = type(default)
    try:
        return _WORDS[text.lower()] if kind is bool else kind(text)
    except (KeyError, ValueError):
        wanted = {bool: "true or false", int: "an integer", float: "a number"}[kind]
        raise GraphFileError(
            f"option '{name}' must be {wanted}, not '{text}'.",
            where=where,
            hint=f"Its default is {str(default).lower() if kind is bool else default}.",
        ) from None
