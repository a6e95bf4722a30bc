"""Whether a network keeps the examples of a batch apart, so that the batch may go through it in parts.

It does where every value that comes of the batch has the examples along its first axis and along no other,
and no operator looks along that axis. Shapes say the first, as long as the batch is a symbol; the second each
operator's definition. What is not known to keep them apart counts as if it did not.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

import onnx_ir as ir
from onnx_ir.convenience import get_const_tensor

from cnnc.ir.transcribe import holds_graph
from cnnc.ir.types import Dim, dims_of

# fmt: off
_AXIS = {
    **dict.fromkeys(("ArgMax", "ArgMin", "Gather", "GatherElements", "ScatterElements", "Split"), 0),
    **dict.fromkeys(("Hardmax", "LayerNormalization", "LogSoftmax", "LpNormalization"), -1),
    **dict.fromkeys(("Softmax", "TopK"), -1),
}
"""The axis along which an operator works where its attribute does not say."""
_PLACES = frozenset({
    "Bernoulli", "Compress", "EyeLike", "GatherND", "MeanVarianceNormalization", "Multinomial", "NonZero",
    "RandomNormalLike", "RandomUniformLike", "Range", "ReverseSequence", "ScatterND", "Unique",
})
"""Operators that may look along the first axis, or whose results depend on where in a batch an example is."""
_AXES = {"CumSum": 1, "Pad": 3, "Slice": 3}
"""The operand that names the axes along which an operator works."""
_OF_SIZES = frozenset({
    "Add", "Cast", "Concat", "Div", "Gather", "Identity", "Max", "Min", "Mul", "Slice", "Squeeze", "Sub",
    "Unsqueeze",
})
"""Operators that make sizes of sizes."""
_TAKE_SIZES = frozenset({"ConstantOfShape", "Expand", "Pad", "Reshape", "Resize", "Slice", "Tile"})
"""Operators that are told sizes: any other makes numbers of how many examples there are."""
# fmt: on


class Apart:
    """Follows the examples of a batch from `inputs`, which have them along their first axis, of size `batch`.

    Nodes are asked in the order of the graph.
    """

    def __init__(self, batch: str, inputs: Iterable[ir.Value]) -> None:
        self._batch, self._examples, self._sizes = batch, set(inputs), set[ir.Value]()

    def meet(self, node: ir.Node) -> str:
        """Why examples may meet in a node, in a clause; empty where they don't."""
        reads = [value for value in node.inputs if value is not None and value in self._examples]
        sizes = any(value in self._sizes for value in node.inputs)
        if not reads and not sizes and not holds_graph(node):
            return ""
        if node.op_type in ("Shape", "Size") or (not reads and _counts(node)):
            self._sizes.update(node.outputs)
            return ""
        if any(not self._leads(value) for value in node.outputs):
            return f"'{node.name}' ({node.op_type}) mixes the examples of a batch"
        if (
            holds_graph(node)
            or (sizes and node.op_type not in _TAKE_SIZES)
            or node.op_type in _PLACES
            or _along_first(node)
            or _by_product(node, reads)
        ):
            return f"'{node.name}' ({node.op_type}) may mix the examples of a batch"
        self._examples.update(node.outputs)
        return ""

    def _leads(self, value: ir.Value) -> bool:
        """Whether the batch is the first axis of a value, and of no other axis a part."""
        if value.shape is None:
            return False
        first, *others = dims_of(value) or ("",)
        return first == self._batch and not any(self._batch in _symbols(dim) for dim in others)


def _symbols(dim: Dim) -> list[str]:
    """The symbols of which a dimension such as ``"2*N"`` is made."""
    return re.findall(r"\w+", dim) if isinstance(dim, str) else []


def _counts(node: ir.Node) -> bool:
    """Whether a node that reads sizes alone gives sizes."""
    return node.op_type in _OF_SIZES and all(
        v.dtype is not None and v.dtype.is_integer() for v in node.outputs
    )


def _along_first(node: ir.Node) -> bool:
    """Whether an operator may work along the first axis of what it reads."""
    data = node.inputs[0]
    rank = len(dims_of(data)) if data is not None and data.shape is not None else 0
    if node.op_type == "Trilu":
        return rank < 3
    if node.op_type == "MaxPool":  # the places of its maxima are counted over the batch
        return len(node.outputs) > 1
    if node.op_type == "Pad" and len(node.inputs) < 4:  # the end may lose what the begin gets
        pads = _numbers(node, 1)
        return not pads or pads[0] != 0
    if node.op_type in _AXES:
        axes = _numbers(node, _AXES[node.op_type])
    elif "axis" in node.attributes:
        axes = [] if node.op_type == "Flatten" else [node.attributes["axis"].as_int()]
    else:
        axes = [_AXIS[node.op_type]] if node.op_type in _AXIS else []
    return axes is None or any(not rank or axis % rank == 0 for axis in axes)


def _numbers(node: ir.Node, index: int) -> list[int] | None:
    """The integers of a constant operand; None where they are not known."""
    value = node.inputs[index] if index < len(node.inputs) else None
    tensor = None if value is None else get_const_tensor(value)
    return None if tensor is None else [int(number) for number in tensor.numpy().ravel()]


def _by_product(node: ir.Node, reads: Sequence[ir.Value]) -> bool:
    """Whether a product sums over the first axis of one of its operands, as where a batch is on the right."""
    if node.op_type in ("MatMul", "Gemm"):
        right = node.inputs[1]
        return right is not None and right in reads and len(dims_of(right)) < 3
    if node.op_type != "Einsum":
        return False
    terms, arrow, result = node.attributes["equation"].as_string().replace(" ", "").partition("->")
    if not arrow or "." in terms:
        return True
    operands = zip(node.inputs, terms.split(","), strict=True)
    return any(
        (value in reads) != (term[:1] == result[:1]) or result[:1] in term[1:] for value, term in operands
    )
