"""Calling the command line from tests: in process where that will do, else as a process of its own."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

from cnnc.cli import main

PROGRAM = [sys.executable, "-c", "from cnnc.cli import main; main()"]
SMALL = """
from cnnc import Program, Tensor, losses, metrics, nn, optim

def program(width: int = 4):
    return Program(
        input=Tensor("image", ("N", 1, 8, 8)),
        model=nn.Sequential(nn.Conv2d(width, 3, 2, activation="relu"), nn.Flatten(), nn.Dense(10)),
        loss=losses.SoftmaxCrossEntropy(),
        optimizer=optim.Adam(learning_rate=0.01),
        metrics=[metrics.Accuracy()],
    )
"""
"""A graph file whose network learns the digits in a second."""


@dataclass(frozen=True)
class Result:
    """How a command ended."""

    status: int
    out: str
    err: str


def call(*arguments: object) -> Result:
    """Run a command in this process."""
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        try:
            main([str(argument) for argument in arguments])
        except SystemExit as ended:
            status = ended.code
    assert isinstance(status, int)
    return Result(status, out.getvalue(), err.getvalue())


def done(*arguments: object) -> Result:
    """Run a command in this process that must succeed."""
    result = call(*arguments)
    assert result.status == 0, result.err
    return result


def spawn(*arguments: object, **environment: str) -> Result:
    """Run a command as a process."""
    ended = subprocess.run(
        [*PROGRAM, *map(str, arguments)],
        env={**os.environ, **environment},
        capture_output=True,
        encoding="utf-8",
        timeout=120,
        check=False,
    )
    return Result(ended.returncode, ended.stdout, ended.stderr)


def contents(folder: Path) -> dict[str, bytes | None]:
    """Every file and folder below `folder`, with the bytes of the files."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in folder.rglob("*")
        if "__pycache__" not in path.parts
    }


def check_refused(arguments: Sequence[object], said: Sequence[str], folder: Path) -> None:
    """The command exits with 1 and one paragraph that says all of `said`, and leaves `folder` as it was."""
    before = contents(folder)
    result = call(*arguments)
    assert (result.status, result.out) == (1, ""), result
    (line,) = result.err.splitlines()
    assert line.startswith("error: ")
    for words in said:
        assert words in line, line
    assert contents(folder) == before, "something was left behind"
