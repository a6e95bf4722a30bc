"""What a model uses that ONNX Runtime is known to compute wrongly.

ScatterND with a reduction, in ONNX Runtime 1.32 on the CPU: its rows are shared out among threads, and two
that update one element lose an update. The sum of 4,096 rows of 64 elements in one row was off by more than
half on two threads; on one thread, and by ScatterElements on any number of them, it is right.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from cnnc.ir import Network


def cautions(network: Network) -> list[str]:
    """One sentence for each such node."""
    return [
        f"ONNX Runtime loses updates in ScatterND '{node.metadata_props.get('cnnc.layer') or node.name}' "
        f"({reduction}) where indices repeat, if it has two threads or more: train with --threads 1, or "
        "write it as a ScatterElements."
        for node in network.graph
        if node.op_type == "ScatterND" and (reduction := _reduction(node)) != "none" and _may_repeat(node)
    ]


def _reduction(node: ir.Node) -> str:
    return node.attributes["reduction"].as_string() if "reduction" in node.attributes else "none"


def _may_repeat(node: ir.Node) -> bool:
    """Whether two of its indices are the same, or only the run knows."""
    indices = node.inputs[1]
    tensor = None if indices is None else ir.convenience.get_const_tensor(indices)
    if tensor is None:
        return True
    array = tensor.numpy()
    rows = array.reshape(-1, array.shape[-1])
    return len(np.unique(rows, axis=0)) < len(rows)
