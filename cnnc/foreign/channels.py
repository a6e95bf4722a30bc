"""Whether weights have as many channels as what they meet: ONNX's own inference does not ask."""

from __future__ import annotations

from collections.abc import Callable

from onnx import NodeProto

from cnnc.errors import ModelError
from cnnc.foreign.protos import attributes

Sizes = Callable[[str], tuple[int, ...] | None]

_BY_CHANNEL = ("BatchNormalization", "InstanceNormalization")


def check_channels(node: NodeProto, sizes: Sizes) -> None:
    """Raise ModelError where a convolution's or normalisation's weight does not fit its input."""
    if node.op_type not in ("Conv", "ConvTranspose", *_BY_CHANNEL):
        return
    x, w = sizes(node.input[0]), sizes(node.input[1])
    if x is None or w is None or len(x) < 2 or not w:
        return
    group = attributes(node).get("group", 1)
    if node.op_type == "Conv":
        fits = x[1] == w[1] * group and not w[0] % max(group, 1)
    elif node.op_type == "ConvTranspose":
        fits = x[1] == w[0] and not w[0] % max(group, 1)
    else:
        fits = all(sizes(name) == (x[1],) for name in node.input[1:])
    if not fits:
        raise ModelError(
            f"its weight {list(w)} does not fit an input of {x[1]} channels"
            f"{f' in {group} groups' if group != 1 else ''}"
        )
