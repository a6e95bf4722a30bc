"""What bodies over sliding windows share."""

from __future__ import annotations

from cnnc.ir import Dim, is_static
from cnnc.lowering.body import Call, Value


def unpad(op: Call, full: Value, x: Value) -> Value:
    """The gradient of the padded input → of x: begin pads cut off, the end cut or filled with zeros."""
    window, dims = op.window, op.dims(x)
    axes = list(range(2, 2 + window.rank))
    if not is_static((*dims[2:], *op.dims(full)[2:])):
        # The end misses at most the elements that no window reached.
        fill = [max(s - 1 - end, 0) for s, end in zip(window.strides, window.ends, strict=True)]
        full = op.Pad(full, [0] * (4 + window.rank) + fill) if any(fill) else full
        return op.Slice(full, window.begins, op.Add(op.Shape(x, start=2), window.begins), axes, dims=dims)
    sizes, spans = [int(d) for d in dims[2:]], [int(d) for d in op.dims(full)[2:]]
    ends = [min(b + size, span) for b, size, span in zip(window.begins, sizes, spans, strict=True)]
    if any(window.begins) or ends != spans:
        full = op.Slice(full, window.begins, ends, axes)
    missing = [size - (e - b) for size, b, e in zip(sizes, window.begins, ends, strict=True)]
    return op.Pad(full, [0] * (4 + window.rank) + missing) if any(missing) else full


def times(size: Dim, factor: int) -> Dim:
    """A multiple of a dimension, a new symbol where it is one."""
    return size * factor if isinstance(size, int) else size if factor == 1 else f"{factor}*{size}"
