"""Operators of ONNX Runtime's own domain that standard ones say as well, before a model is looked at.

ONNX Runtime's optimizer leaves them in models that it saved.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import onnx
from onnx import ModelProto, NodeProto, helper

DOMAIN = "com.microsoft"


def replace_extensions(model: ModelProto) -> None:
    """Write what stands in `EXTENSIONS` with operators of standard ONNX, in place; leave other domains be."""
    nodes = [made for node in model.graph.node for made in _replaced(node)]
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def _replaced(node: NodeProto) -> Iterator[NodeProto]:
    form = EXTENSIONS.get(node.op_type) if node.domain == DOMAIN else None
    if form is None:
        yield node
    else:
        yield from form(node)


def _quick_gelu(node: NodeProto) -> Iterator[NodeProto]:
    """y = x · sigmoid(alpha · x); Hendrycks and Gimpel, 2016, with alpha 1.702."""
    (x,), (y,) = node.input, node.output
    alpha = next((helper.get_attribute_value(a) for a in node.attribute if a.name == "alpha"), 1.702)
    tensor = helper.make_tensor("value", onnx.TensorProto.FLOAT, [], [alpha])
    names = [f"{y}/alpha", f"{y}/scaled", f"{y}/gate"]
    name = node.name or y
    yield helper.make_node("Constant", [], names[:1], name=f"{name}/alpha", value=tensor)
    yield helper.make_node("Mul", [x, names[0]], names[1:2], name=f"{name}/scaled")
    yield helper.make_node("Sigmoid", names[1:2], names[2:3], name=f"{name}/gate")
    yield helper.make_node("Mul", [x, names[2]], [y], name=name)


EXTENSIONS: dict[str, Callable[[NodeProto], Iterator[NodeProto]]] = {"QuickGelu": _quick_gelu}
