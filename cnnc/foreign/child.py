"""The child process that reads a stranger's file: ``python -m cnnc.foreign.child < request > answer``.

Request and answer are JSON (`cnnc.foreign.reading` is the other side). The answer is an error, in words, or
facts about the model and where its normalised form lies: ``model.onnx``, a graph of our opset whose inputs
are the data and then every large tensor, and ``tensors.bin``, the data of those.
"""

from __future__ import annotations

import contextlib
import json
import resource
import sys
from collections import Counter
from pathlib import Path
from typing import Any

MEMORY_STATUS = 3
"""Exit status that says: the memory limit was reached."""


def main() -> int:
    """Answer the request on standard input."""
    request = json.load(sys.stdin)
    limit = int(request["memory"])
    with contextlib.suppress(ValueError):  # a stricter limit is in force already
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    try:
        json.dump(answer(request), sys.stdout)
    except MemoryError:
        return MEMORY_STATUS
    return 0


def answer(request: dict[str, Any]) -> dict[str, Any]:
    """Facts about the model, or what is wrong with it."""
    from cnnc.errors import CnncError

    try:
        return {"facts": _facts(request)}
    except CnncError as error:
        return {"error": error.what, "hint": error.hint}
    except MemoryError:
        raise
    except Exception as error:  # what onnx's own functions raise on a damaged message is anything
        what = " ".join(f"{type(error).__name__}: {error}".split())[:300].rstrip(".")
        return {"error": f"the model is damaged or invalid ({what}).", "hint": "Copy or export it again."}


def _facts(request: dict[str, Any]) -> dict[str, Any]:
    from cnnc.foreign import quantized
    from cnnc.foreign.functions import inline_functions
    from cnnc.foreign.normalising import normalise
    from cnnc.foreign.protos import all_nodes
    from cnnc.foreign.structure import opset_of, parse, unknown_operators

    path = Path(request["path"])
    model = inline_functions(parse(path))
    nodes = [*all_nodes(model.graph.node)]
    facts: dict[str, Any] = {
        "opset": opset_of(model),
        "producer": " ".join(filter(None, (model.producer_name, model.producer_version))),
        "operators": Counter(node.op_type for node in nodes),
        "unknown": unknown_operators(model),
        "notes": [],
    }
    if facts["unknown"]:
        return facts
    if request["dequantize"]:
        facts["notes"] += quantized.remove(model, path.parent)
    else:
        quantized.refuse(model)
    normalise(model, path.parent, Path(request["folder"]), request, facts)
    return facts


if __name__ == "__main__":
    sys.exit(main())
