"""A failure inside ONNX Runtime, told in the words of the user's own graph.

A node's ``metadata_props`` keep where it comes from: ``cnnc.forward`` names the node of the forward graph
it belongs to, ``cnnc.where`` the file and line that made that node.
"""

from __future__ import annotations

import re

from cnnc.bundle import Bundle
from cnnc.errors import ModelError

FORWARD, WHERE = "cnnc.forward", "cnnc.where"

_FAILED = re.compile(r"while running (?P<op>\S+) node\. Name:'(?P<name>[^']*)'(?: Status Message: )?")
_PREFIX = re.compile(r"^\[ONNXRuntimeError\] : \d+ : \w+ : |^Error in execution: ")
_SOURCE = re.compile(r"\S+\.(?:cc|cu|cuh|cpp|h):\d+ [^()]*\([^()]*\)(?: const)?(?: \[with [^]]*\])? ?")


def explain(error: Exception, bundle: Bundle | None = None, graph: str = "") -> ModelError:
    """The ModelError that tells `error`, raised by a run of `graph` of `bundle`, with the node's origin."""
    message = words(error)
    failed = _FAILED.search(message)
    reason = _SOURCE.sub("", message[failed.end() :] if failed else message).strip().replace("\n", " ")
    if not failed:
        return ModelError(f"ONNX Runtime can't run the graph: {reason}", where=graph)
    graph, names = graph or "the model", _calls(bundle, failed["name"])
    if len(names) != 1:
        among = f", one of {', '.join(names[:5])}" if names else ""
        return ModelError(f"ONNX Runtime failed at a node of type {failed['op']} of {graph}{among}: {reason}")
    forward, where = _origin(bundle, graph, names[0])
    belongs = f", which belongs to '{forward}'" if forward and forward != names[0] else ""
    return ModelError(
        f"ONNX Runtime failed at {failed['op']} node '{names[0]}' of {graph}{belongs}: {reason}", where=where
    )


def words(error: Exception) -> str:
    """What ONNX Runtime says of an error, without its codes."""
    return _PREFIX.sub("", str(error).strip())


def _calls(bundle: Bundle | None, name: str) -> list[str]:
    """The nodes of the graph behind `name`: ONNX Runtime names an inlined node after its function."""
    functions = bundle.manifest.functions if bundle else ()
    inlined = {call.function for call in functions if name.startswith(f"_inlfunc_{call.function}_")}
    if inlined:
        return [call.node for call in functions if call.function == max(inlined, key=len)]
    return [name] if name else []


def _origin(bundle: Bundle | None, graph: str, name: str) -> tuple[str, str]:
    """What the node's metadata say: the forward node and the user's file and line, empty where unknown."""
    if bundle is None:
        return "", ""
    import onnx  # only a failure pays for this import

    model = onnx.load(bundle.graph(graph), load_external_data=False)
    properties = next((node.metadata_props for node in model.graph.node if node.name == name), ())
    origin = {item.key: item.value for item in properties}
    return origin.get(FORWARD, ""), origin.get(WHERE, "")
