"""What bodies over sliding windows share."""

from __future__ import annotations

from cnnc.lowering.body import Call, Value


def unpad(op: Call, full: Value, x: Value) -> Value:
    """The gradient of the padded input → of x: begin pads cut off, the end cut or filled with zeros."""
    window = op.window
    sizes, spans = [int(d) for d in op.dims(x)[2:]], [int(d) for d in op.dims(full)[2:]]
    ends = [min(b + size, span) for b, size, span in zip(window.begins, sizes, spans, strict=True)]
    if any(window.begins) or ends != spans:
        full = op.Slice(full, window.begins, ends, list(range(2, 2 + window.rank)))
    missing = [size - (e - b) for size, b, e in zip(sizes, window.begins, ends, strict=True)]
    return op.Pad(full, [0] * (4 + window.rank) + missing) if any(missing) else full
