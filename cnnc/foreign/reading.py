"""Reading a foreign model without trusting it: in a child process with a limit of memory and of time."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from cnnc.errors import ModelError, os_errors_as
from cnnc.foreign.child import MEMORY_STATUS

SECONDS = 120.0
"""How long reading may take; a gigabyte of file adds as much again."""
_BASE = 3 * 2**29
"""Bytes that the child may map beside copies of the file: what Python, NumPy and onnx take, and room."""
_OUT_OF_MEMORY = ("bad_alloc", "MemoryError", "annot allocate memory")
"""What a process says that reached its limit of memory."""


@dataclass(frozen=True)
class Foreign:
    """A normalised foreign model: a graph of our opset, whose large tensors lie beside it.

    `graph` has the data as its first input and then the large tensors, whose values `arrays` holds, or
    `drawn` describes (see `cnnc.initial`) where one number fills them; `stored` are the constants that stand
    in the source as such, not as the result of a computation, `literals` those of them in Constant nodes.
    `operators` counts the source's, `unknown` are those that ONNX does not have (with a node), `problems`
    (operator, node, why) those that our opset can't say: with either, `graph` is empty.
    """

    path: Path
    opset: int
    producer: str
    operators: dict[str, int]
    unknown: dict[str, str]
    problems: tuple[tuple[str, str, str], ...]
    notes: tuple[str, ...]
    graph: onnx.GraphProto
    arrays: dict[str, npt.NDArray[Any]] = field(default_factory=dict)
    drawn: dict[str, dict[str, Any]] = field(default_factory=dict)
    stored: frozenset[str] = frozenset()
    literals: frozenset[str] = frozenset()


def read(
    path: str | os.PathLike[str],
    *,
    output: str | Sequence[str] | None = None,
    example: Sequence[int] | None = None,
    dequantize: bool = False,
    memory: int | None = None,
    seconds: float | None = None,
) -> Foreign:
    """Read and normalise the model at `path`.

    `output` names the output to train on (the first), or several, `example` the sizes of one example where
    the model leaves them open, `dequantize` takes quantisation away; `memory` (bytes) and `seconds` are
    limits, which follow the file's size where they are not given. Raises ModelError.
    """
    source = Path(path)
    with os_errors_as(ModelError, "the model can't be read", where=path):
        size = source.stat().st_size
        with source.open("rb"):
            pass
    seconds = seconds or SECONDS * (1 + size / 2**30)
    with tempfile.TemporaryDirectory(prefix="cnnc-") as folder:
        request = {
            "path": str(source),
            "folder": folder,
            "outputs": [output] if isinstance(output, str) else output,
            "example": None if example is None else list(example),
            "dequantize": dequantize,
            "memory": memory or _BASE + 5 * size,
        }
        facts = _ask(request, seconds)
        return _result(source, Path(folder), facts)


def _ask(request: dict[str, Any], seconds: float) -> dict[str, Any]:
    """The child's facts. Raises ModelError for what it says is wrong."""
    answer = _spawn(request, seconds)
    if "error" in answer:
        raise ModelError(answer["error"], where=request["path"], hint=answer["hint"])
    return dict(answer["facts"])


def _spawn(request: dict[str, Any], seconds: float) -> dict[str, Any]:
    """The child's answer. Raises ModelError for its end without one."""
    where = request["path"]
    try:
        ended = subprocess.run(
            [sys.executable, "-P", "-m", "cnnc.foreign.child"],
            input=json.dumps(request),
            env={**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=seconds,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise ModelError(
            f"reading the model took longer than {seconds:.0f} s, and was stopped.", where=where
        ) from None
    words = ended.stderr.strip().splitlines()
    if ended.returncode == MEMORY_STATUS or any(word in ended.stderr for word in _OUT_OF_MEMORY):
        raise ModelError(
            f"reading the model takes more than the {request['memory'] / 2**20:,.0f} MiB that it may use.",
            where=where,
            hint="It is damaged, or made to exhaust the memory.",
        )
    if ended.returncode < 0:
        name = signal.Signals(-ended.returncode).name
        raise ModelError(f"the process that read the model was killed ({name}).", where=where)
    if ended.returncode:
        last = words[-1] if words else "without a word"
        raise ModelError(f"the process that read the model failed: {last.rstrip('.')}.", where=where)
    return dict(json.loads(ended.stdout))


def _result(source: Path, folder: Path, facts: dict[str, Any]) -> Foreign:
    graph = onnx.GraphProto()
    arrays, drawn = dict[str, npt.NDArray[Any]](), dict[str, dict[str, Any]]()
    if (folder / "model.onnx").exists():
        graph = onnx.load_model(folder / "model.onnx", load_external_data=False).graph
        infos = {value.name: value.type.tensor_type for value in graph.input}
        for name, place in facts["tensors"].items():
            if "fill" in place:
                drawn[name] = {"kind": "constant", "value": place["fill"]}
                continue
            dims = [d.dim_value for d in infos[name].shape.dim]
            dtype = onnx.helper.tensor_dtype_to_np_dtype(infos[name].elem_type)
            arrays[name] = np.fromfile(
                folder / "tensors.bin", dtype, math.prod(dims), offset=place["offset"]
            ).reshape(dims)
    return Foreign(
        source,
        facts["opset"],
        facts["producer"],
        facts["operators"],
        facts["unknown"],
        tuple((op, node, why) for op, node, why in facts.get("problems", [])),
        tuple(facts["notes"]),
        graph,
        arrays,
        drawn,
        frozenset(facts.get("stored", [])),
        frozenset(facts.get("literals", [])),
    )
