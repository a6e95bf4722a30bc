"""Model-local functions, written out where they are called. Runs in the child process."""

from __future__ import annotations

from onnx import ModelProto, inliner

from cnnc.foreign.protos import DOMAINS, all_nodes
from cnnc.foreign.structure import opset_of


def inline_functions(model: ModelProto) -> ModelProto:
    """The model without functions of its own."""
    if not model.functions:
        return model
    _fill_defaults(model)
    return inliner.inline_local_functions(model, convert_version=_mixed(model))


def _fill_defaults(model: ModelProto) -> None:
    """Let each call of a function say the attributes that have defaults: onnx's inliner forgets those."""
    defaults = {(f.domain, f.name, f.overload): f.attribute_proto for f in model.functions}
    for nodes in (model.graph.node, *(function.node for function in model.functions)):
        for node in all_nodes(nodes):
            given = {item.name for item in node.attribute}
            absent = defaults.get((node.domain, node.op_type, node.overload), ())
            node.attribute.extend(item for item in absent if item.name not in given)


def _mixed(model: ModelProto) -> bool:
    """Whether functions were written in another opset than the graph that calls them."""
    version = opset_of(model)
    return any(
        item.version != version
        for function in model.functions
        for item in function.opset_import
        if item.domain in DOMAINS
    )
