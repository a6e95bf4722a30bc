"""Resampling: each element of the output is a weighted sum of elements of the input."""

from __future__ import annotations

from cnnc.autodiff.rule import Context, Gradients, Value, rule


@rule("GridSample")
def grid_sample(op: Context, dy: Value) -> Gradients:
    """Moving the grid changes nothing where the nearest element is taken."""
    x, grid = op.inputs
    attributes = {name: op.attr(name) for name in ("mode", "padding_mode", "align_corners")}
    dgrid = None if attributes["mode"] == "nearest" else op.GridSampleGradGrid(dy, grid, x, **attributes)
    return op.GridSampleGradInput(dy, grid, x, **attributes), dgrid
