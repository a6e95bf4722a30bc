"""From gradient ops to standard ONNX: the table of bodies, and the pass that gives each op one.

One file per family of gradient ops. A body is a function that emits standard ONNX nodes; importing this
package fills the table.
"""

from cnnc.lowering import (
    convolution,
    draws,
    dropout,
    elementwise,
    grid_sample,
    indexing,
    layer_normalization,
    loss,
    normalization,
    optimizer,
    pooling,
    resize,
)
from cnnc.lowering.body import BODIES, Body, Call, body
from cnnc.lowering.choose import legal_bodies, lower

__all__ = [
    "BODIES",
    "Body",
    "Call",
    "body",
    "convolution",
    "draws",
    "dropout",
    "elementwise",
    "grid_sample",
    "indexing",
    "layer_normalization",
    "legal_bodies",
    "loss",
    "lower",
    "normalization",
    "optimizer",
    "pooling",
    "resize",
]
