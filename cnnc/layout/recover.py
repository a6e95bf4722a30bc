"""From a bundle's train.onnx back to the step as autodiff left it: one node for each gradient op."""

from __future__ import annotations

import onnx
import onnx_ir as ir

from cnnc.bundle import Bundle
from cnnc.errors import BundleError


def recover_step(bundle: Bundle) -> ir.Graph:
    """The graph of train.onnx with every call of a function turned back into its gradient op.

    Raises BundleError where the graph can't be read, or has a function that the manifest does not know.
    """
    path = bundle.graph("train.onnx")
    try:
        model = ir.serde.deserialize_model(onnx.load(path))
    except Exception as error:  # protobuf's DecodeError is not part of onnx's interface
        raise BundleError(f"this graph can't be read: {error}.", where=str(path)) from error
    specs = {spec.node: spec for spec in bundle.manifest.functions}
    for node in model.graph:
        if (node.domain, node.op_type, node.overload) in model.functions:
            if str(node.name) not in specs:
                raise BundleError(
                    f"its node '{node.name}' calls a function that the manifest does not know.",
                    where=str(path),
                )
            node.op_type = specs[str(node.name)].op
            node.metadata_props.pop("cnnc.body", None)
    return model.graph
