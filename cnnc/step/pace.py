"""How often parameters move: after each batch, or once in several."""

from __future__ import annotations

import onnx_ir as ir

from cnnc.ir import Builder


def pace(builder: Builder, step: ir.Value, accumulate: int) -> tuple[ir.Value, ir.Value | None]:
    """Emit how many updates came before this batch, and whether one follows it; None where one always does.

    `step` counts the batches before it, int64, and an update follows every `accumulate` of them.
    """
    if accumulate == 1:
        return step, None
    last = builder.op("Mod", step, accumulate)
    return builder.op("Div", step, accumulate), builder.op("Equal", last, accumulate - 1)
